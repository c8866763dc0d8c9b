//! What a run needs: from what is wanted backwards, ending at what is cached.

use crate::wiring::{Wiring, outputs_of};

/// Whether a step is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Nothing asks for it.
    None,
    /// A node that evaluates its inputs on demand may ask for it.
    Maybe,
    /// It is wanted, or something that runs reads it.
    Certain,
}

/// What is needed of a plan, and what of it was found in a cache.
pub(crate) struct Demand<H> {
    /// By step.
    pub(crate) need: Vec<Need>,
    /// By slot: whether anybody reads this output.
    pub(crate) wanted: Vec<bool>,
    /// By step: what a cache holds of it.
    pub(crate) hits: Vec<Option<H>>,
}

impl<H> Demand<H> {
    /// Follows the plan backwards. `find` says what a cache holds of a step whose outputs are
    /// wanted so; a step that was found does not ask for its inputs.
    pub(crate) fn new(
        wiring: &Wiring<'_>,
        mut find: impl FnMut(usize, &[bool]) -> Option<H>,
    ) -> Self {
        let steps = wiring.steps();
        let mut demand = Demand {
            need: vec![Need::None; steps],
            wanted: vec![false; wiring.slots_in_all()],
            hits: (0..steps).map(|_| None).collect(),
        };
        demand.targets(wiring);
        // Sources stand before their readers, so all readers of a step are decided when its turn
        // comes.
        for step in (0..steps).rev() {
            if demand.need[step] == Need::None {
                continue;
            }
            let hit = find(step, &demand.wanted[wiring.slots(step)]);
            if hit.is_some() {
                demand.hits[step] = hit;
                continue;
            }
            for edge in &wiring.edges[wiring.edges_into(step)] {
                let need = if edge.lazy { Need::Maybe } else { demand.need[step] };
                let from = &mut demand.need[edge.from as usize];
                *from = need.max(*from);
                demand.wanted[edge.slot as usize] = true;
            }
        }
        demand
    }

    fn targets(&mut self, wiring: &Wiring<'_>) {
        for source in outputs_of(wiring.plan) {
            self.need[source.step as usize] = Need::Certain;
            self.wanted[wiring.slot(source)] = true;
        }
        for (step, planned) in wiring.plan.steps.iter().enumerate().filter(|(_, step)| step.target)
        {
            self.need[step] = Need::Certain;
            let wanted = &mut self.wanted[wiring.slots(step)];
            // What a sink gives names the files that it leaves behind: they are recorded, whoever
            // reads them.
            if planned.traits.sink || !wanted.contains(&true) {
                wanted.fill(true);
            }
        }
    }
}
