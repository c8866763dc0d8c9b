//! How values flow and failures spread: asking for inputs, handing outputs on, letting go.

use std::sync::Arc;

use kino_node::{Lease, Outputs, Value};

use super::{Asked, Edge, Phase, Schedule};
use crate::event::Event;
use crate::store::{Hit, finished};

/// Values of fewer bytes take no lease.
const SMALL: u64 = 1 << 12;

impl Schedule<'_> {
    /// Makes a step live that so far may only have been needed, with everything that it needs in
    /// turn.
    pub(super) fn ask(&mut self, step: u32) {
        let mut stack = vec![step];
        while let Some(step) = stack.pop() {
            if self.phase[step as usize] != Phase::Maybe {
                continue;
            }
            self.phase[step as usize] = Phase::Live;
            self.turns.begin(self.wiring.turn(step as usize));
            match self.hits[step as usize].take() {
                Some(Hit::Here { outputs, cached, seconds, lease }) => {
                    let event = finished(self.wiring, step as usize, &outputs, cached, seconds);
                    self.outbox.push(event);
                    self.cached.push(step);
                    self.publish(step, outputs);
                    self.garbage.leases.extend(lease);
                    continue;
                }
                Some(open) => {
                    self.hits[step as usize] = Some(open);
                    self.ready(step);
                    continue;
                }
                None => {}
            }
            let strict = self.wiring.edges_into(step as usize);
            let strict = strict.filter(|edge| !self.wiring.edges[*edge].lazy).collect::<Vec<_>>();
            self.need(step, &strict, &mut stack);
        }
    }

    /// Lets a live step wait for more edges; it fails if one of their sources has failed.
    fn need(&mut self, step: u32, edges: &[usize], ask: &mut Vec<u32>) {
        let sources = edges.iter().map(|edge| self.wiring.edges[*edge].from as usize);
        let failed = sources.clone().find_map(|from| match self.phase[from] {
            Phase::Failed(because) => Some(because),
            _ => None,
        });
        if let Some(because) = failed {
            self.skip(step, because);
            return;
        }
        for edge in edges {
            let from = self.wiring.edges[*edge].from;
            self.asked[*edge] = Asked::Yes;
            if self.phase[from as usize] != Phase::Finished {
                self.waiting[step as usize] += 1;
                ask.push(from);
            }
        }
        if self.waiting[step as usize] == 0 {
            self.ready(step);
        }
    }

    /// Puts a step whose inputs are there where a worker finds it.
    pub(super) fn ready(&mut self, step: u32) {
        let at = step as usize;
        if self.turns.holds(self.wiring.turn(at), step) {
            return;
        }
        if self.hits[at].is_some() {
            return self.light.push(step);
        }
        let heavy = self.wiring.traits(at).heavy && !self.must_choose(step);
        if heavy { self.heavy.push(step) } else { self.light.push(step) }
    }

    /// Whether the node has yet to say which of its lazy inputs it needs.
    pub(super) fn must_choose(&self, step: u32) -> bool {
        let mut edges = self.wiring.edges_into(step as usize);
        edges.any(|edge| self.wiring.edges[edge].lazy && self.asked[edge] == Asked::No)
    }

    /// Hands a step's outputs to whoever reads them.
    pub(super) fn publish(&mut self, step: u32, outputs: Outputs) {
        let at = step as usize;
        self.phase[at] = Phase::Finished;
        self.turns.end(self.wiring.turn(at));
        for (slot, value) in self.wiring.slots(at).zip(outputs) {
            if self.readers[slot] > 0 {
                self.leases[slot] = value.as_ref().and_then(|value| self.lease(value));
                self.values[slot] = value;
            } else {
                self.garbage.values.extend(value);
            }
        }
        // Backwards, so that the first is started first.
        for index in (self.first_out[at]..self.first_out[at + 1]).rev() {
            let edge = self.out[index as usize] as usize;
            if self.asked[edge] != Asked::Yes {
                continue;
            }
            let to = self.wiring.edges[edge].to;
            self.waiting[to as usize] -= 1;
            if self.waiting[to as usize] == 0 {
                self.ready(to);
            }
        }
    }

    /// A lease on a value in flight; small ones are not worth the counting.
    fn lease(&self, value: &Value) -> Option<Lease> {
        let bytes = value.unleased();
        (bytes >= SMALL).then(|| self.ledger.charge(bytes))
    }

    /// Takes the value of an edge; the last reader takes it for good, with its lease until it ends.
    fn take(&mut self, edge: usize) -> Option<Value> {
        let (value, lease) = self.take_leased(edge);
        if let Some(lease) = lease {
            self.lent.entry(self.wiring.edges[edge].to).or_default().push(lease);
        }
        value
    }

    /// Takes the value of an edge, and the lease on it where nobody else reads it.
    fn take_leased(&mut self, edge: usize) -> (Option<Value>, Option<Lease>) {
        let Edge { from, slot } = Edge::of(self.wiring, edge as u32);
        self.asked[edge] = Asked::Over;
        self.outstanding[from] -= 1;
        self.readers[slot] -= 1;
        if self.readers[slot] > 0 {
            return (self.values[slot].clone(), None);
        }
        (self.values[slot].take(), self.leases[slot].take())
    }

    /// Lets go of edges whose readers want nothing any more, and of what only they might have
    /// needed.
    fn release(&mut self, edges: impl IntoIterator<Item = usize>) {
        let mut stack: Vec<usize> = edges.into_iter().collect();
        while let Some(edge) = stack.pop() {
            if self.asked[edge] == Asked::Over {
                continue;
            }
            let (last, lease) = self.take_leased(edge);
            self.garbage.values.extend(last);
            self.garbage.leases.extend(lease);
            let from = self.wiring.edges[edge].from as usize;
            if self.outstanding[from] == 0 && self.phase[from] == Phase::Maybe {
                self.phase[from] = Phase::Idle;
                self.hits[from] = None;
                stack.extend(self.wiring.edges_into(from));
            }
        }
    }

    /// Fails all that depends on a failed step.
    pub(super) fn skip(&mut self, step: u32, because: u32) {
        let mut stack = vec![step];
        while let Some(step) = stack.pop() {
            let at = step as usize;
            if self.phase[at] != Phase::Live {
                continue;
            }
            self.phase[at] = Phase::Failed(because);
            self.turns.end(self.wiring.turn(at));
            if step != because {
                self.skipped.push(step);
                self.outbox.push(Event::Skipped {
                    name: Arc::clone(self.wiring.name(at)),
                    op: Arc::clone(self.wiring.op(at)),
                    because: Arc::clone(self.wiring.name(because as usize)),
                });
            }
            let edges = self.first_out[at] as usize..self.first_out[at + 1] as usize;
            let asked = self.out[edges].iter().map(|edge| *edge as usize);
            let asked = asked.filter(|edge| self.asked[*edge] == Asked::Yes);
            stack.extend(asked.map(|edge| self.wiring.edges[edge].to));
            let held = self.held.remove(&step).unwrap_or_default();
            self.garbage.values.extend(held.into_iter().flatten());
            self.garbage.leases.extend(self.lent.remove(&step).into_iter().flatten());
            self.release(self.wiring.edges_into(at));
        }
    }

    /// Takes the value of an edge, if its reader has asked for it.
    pub(super) fn take_asked(&mut self, edge: usize) -> Option<Value> {
        if self.asked[edge] == Asked::Yes { self.take(edge) } else { None }
    }

    pub(super) fn chose(&mut self, step: u32, values: Vec<Option<Value>>, ports: &[u32]) {
        self.held.insert(step, values);
        let lazy =
            self.wiring.edges_into(step as usize).filter(|edge| self.wiring.edges[*edge].lazy);
        let (chosen, others): (Vec<_>, Vec<_>) =
            lazy.partition(|edge| ports.contains(&self.wiring.edges[*edge].port));
        let mut ask = Vec::new();
        self.need(step, &chosen, &mut ask);
        self.release(others);
        ask.into_iter().for_each(|from| self.ask(from));
    }
}
