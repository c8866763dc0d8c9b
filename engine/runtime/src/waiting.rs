//! Values that wait for a node which joins many, such as the turns of a long loop: the first may
//! wait for the rest of the run, so their frames wait in temporary files. What is joined then takes
//! the same memory however long it is.

use std::collections::HashMap;
use std::sync::Arc;

use kino_node::{Ledger, Outputs, SpillFile, bytes_of_fact};

use crate::wiring::Wiring;

/// What takes no more than this all together waits in memory.
const SMALL: u64 = 16 << 20;

/// The outputs that wait for a node which joins them, by slot: the step that does. What it joins is
/// large, going by what was known while planning.
pub(crate) fn waiting_for_joins(wiring: &Wiring<'_>) -> HashMap<u32, u32> {
    let mut waiting = HashMap::new();
    for step in (0..wiring.steps()).filter(|step| wiring.traits(*step).joins) {
        let edges = &wiring.edges[wiring.edges_into(step)];
        let bytes = edges.iter().map(|edge| {
            let from = edge.from as usize;
            let output = edge.slot as usize - wiring.slots(from).start;
            wiring.plan.steps[from].facts.get(output).map_or(0, bytes_of_fact)
        });
        if bytes.fold(0, u64::saturating_add) > SMALL {
            waiting.extend(edges.iter().map(|edge| (edge.slot, step as u32)));
        }
    }
    waiting
}

/// Where what waits lies: a file for each node that joins.
pub(crate) struct Waiting<'r> {
    wiring: &'r Wiring<'r>,
    by_slot: HashMap<u32, u32>,
    files: HashMap<u32, SpillFile>,
}

impl<'r> Waiting<'r> {
    pub(crate) fn new(wiring: &'r Wiring<'r>, ledger: &Arc<Ledger>) -> Self {
        let by_slot = waiting_for_joins(wiring);
        let files = by_slot.values().map(|step| (*step, SpillFile::new(ledger))).collect();
        Waiting { wiring, by_slot, files }
    }

    /// The outputs of a step, with those that will wait where they do not take memory. Where that
    /// cannot be had, they stay as they are.
    pub(crate) fn set_aside(&self, step: usize, mut outputs: Outputs) -> Outputs {
        if self.by_slot.is_empty() {
            return outputs;
        }
        for (slot, output) in self.wiring.slots(step).zip(&mut outputs) {
            let file = self.by_slot.get(&(slot as u32)).and_then(|join| self.files.get(join));
            let (Some(file), Some(value)) = (file, output.as_ref()) else { continue };
            match value.moved_to(file) {
                Ok(Some(moved)) => *output = Some(moved),
                Ok(None) => {}
                Err(error) => {
                    let name = self.wiring.name(step);
                    tracing::debug!("What `{name}` gave waits in memory: {error}.");
                }
            }
        }
        outputs
    }
}
