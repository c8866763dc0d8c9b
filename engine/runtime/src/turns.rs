//! Which turns of a loop may begin. What a turn does not take from the one before it, such as its
//! noise, could be computed for all turns at once and would wait in memory; so a turn begins when
//! the one before the last is over, and two are under way at a time.
//!
//! Nothing waits for ever: a turn depends on those before it and on what lies outside of its loop,
//! and nothing of that on a later turn.

use std::collections::BTreeMap;

use kino_graph::{Plan, Turn};

/// The loops of a run.
#[derive(Default)]
pub(crate) struct Turns {
    /// By loop and turn: steps that are asked for and not over.
    live: Vec<Vec<u32>>,
    /// By loop: the first turn that is not over.
    first: Vec<usize>,
    /// Steps that are ready, of turns that may not begin yet.
    held: BTreeMap<(u32, u32), Vec<u32>>,
    /// Something changed since it was looked which turns are over.
    changed: bool,
}

impl Turns {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut turns = Turns::default();
        for Turn { of, number } in plan.steps.iter().filter_map(|step| step.turn) {
            let (of, number) = (of as usize, number as usize);
            turns.live.resize(turns.live.len().max(of + 1), Vec::new());
            let all = &mut turns.live[of];
            all.resize(all.len().max(number + 1), 0);
        }
        turns.first = vec![0; turns.live.len()];
        turns
    }

    /// A step of a turn is asked for.
    pub(crate) fn begin(&mut self, turn: Option<Turn>) {
        if let Some(Turn { of, number }) = turn {
            self.live[of as usize][number as usize] += 1;
            self.changed = true;
        }
    }

    /// A step of a turn, which was asked for, is over.
    pub(crate) fn end(&mut self, turn: Option<Turn>) {
        if let Some(Turn { of, number }) = turn {
            self.live[of as usize][number as usize] -= 1;
            self.changed = true;
        }
    }

    /// Keeps a step that is ready if its turn may not begin, and says whether it did.
    pub(crate) fn holds(&mut self, turn: Option<Turn>, step: u32) -> bool {
        let Some(Turn { of, number }) = turn else { return false };
        let waits = number as usize > self.first[of as usize] + 1;
        if waits {
            self.held.entry((of, number)).or_default().push(step);
        }
        waits
    }

    /// The steps that were kept and whose turn may begin by now, the first last.
    pub(crate) fn released(&mut self) -> Vec<u32> {
        let mut released = Vec::new();
        if !std::mem::take(&mut self.changed) {
            return released;
        }
        for (live, first) in self.live.iter().zip(&mut self.first) {
            let over = live[*first..].iter().take_while(|live| **live == 0).count();
            *first += over;
        }
        while let Some((of, number)) = self.may_begin() {
            released.extend(self.held.remove(&(of, number)).unwrap_or_default());
        }
        released.reverse();
        released
    }

    /// A turn that steps are kept of and that may begin.
    fn may_begin(&self) -> Option<(u32, u32)> {
        let begins = |(of, number): &&(u32, u32)| *number as usize <= self.first[*of as usize] + 1;
        let of_loop = |of: usize| self.held.range((of as u32, 0)..=(of as u32, u32::MAX)).next();
        (0..self.live.len()).filter_map(of_loop).map(|(turn, _)| turn).find(begins).copied()
    }
}
