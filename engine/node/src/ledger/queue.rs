//! The order in which steps wait for memory. One that fits may overtake those before it, but each
//! of them only so often; then all wait for the first. It knows no bytes.

use std::collections::VecDeque;

/// How often a step that waits for memory may be overtaken by those that came after it and fit.
pub(crate) const OVERTAKINGS: u32 = 16;

/// A step that waits for memory.
struct Waiting {
    ticket: u64,
    overtaken: u32,
}

/// The steps that wait, in the order in which they came.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many ever came.
    tickets: u64,
}

impl Queue {
    /// One more step waits; gives its ticket.
    pub(crate) fn join(&mut self) -> u64 {
        let ticket = self.tickets;
        self.tickets += 1;
        self.waiting.push_back(Waiting { ticket, overtaken: 0 });
        ticket
    }

    /// A step does not wait any more.
    pub(crate) fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|step| step.ticket != ticket);
    }

    /// Whether nobody came before the step with this ticket.
    pub(crate) fn is_first(&self, ticket: u64) -> bool {
        self.waiting.front().is_none_or(|first| first.ticket == ticket)
    }

    /// Whether a step that fits may go on before those that came earlier. If so, they were overtaken
    /// once more.
    pub(crate) fn overtake(&mut self, ticket: u64) -> bool {
        let before = self.waiting.iter().take_while(|waiting| waiting.ticket != ticket).count();
        let may = self.waiting.iter().take(before).all(|first| first.overtaken < OVERTAKINGS);
        if may {
            self.waiting.iter_mut().take(before).for_each(|first| first.overtaken += 1);
        }
        may
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_overtaken_only_so_often() {
        let mut queue = Queue::default();
        let [first, second] = [queue.join(), queue.join()];
        assert!(queue.is_first(first) && !queue.is_first(second));
        for turn in 0..OVERTAKINGS {
            let other = queue.join();
            assert!(queue.overtake(other), "{turn}");
            queue.leave(other);
        }
        assert!(!queue.overtake(second), "nobody overtakes the first any more");
        assert!(queue.overtake(first), "it overtakes nobody");
        queue.leave(first);
        assert!(queue.is_first(second) && queue.len() == 1);
        let last = queue.join();
        assert!(!queue.overtake(last), "the second was overtaken as often");
        queue.leave(second);
        queue.leave(last);
        assert!(queue.is_first(7), "nobody waits");
    }
}
