//! How long to wait after a notice before looking.
//!
//! A file that was closed after writing, or renamed into its place, is whole: there is nothing to
//! wait for but others that are saved along with it. One that is being written is waited for until
//! it is closed; if nobody closes it, until it has been left alone for a second. Everything else
//! (it vanished, it was touched, the system tells no more than that something happened) may be the
//! first half of a change, and gets [`DEBOUNCE`].

use std::time::{Duration, Instant};

use notify::event::{AccessKind, DataChange, EventKind, ModifyKind, RenameMode};

/// After a file was closed or renamed: so long others are waited for.
pub(super) const WHOLE: Duration = Duration::from_millis(10);
/// After anything else.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// After a write that was not followed by a close.
const OPEN: Duration = Duration::from_secs(1);
/// However often a file is saved whole, it is looked at so often.
const LONGEST: Duration = Duration::from_secs(2);
/// Whether the system tells when a written file is closed.
const TELLS_CLOSE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What a notice says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is whole: closed after writing, or renamed into its place.
    Whole,
    /// It was renamed into its place, so that the way there may be another.
    Placed,
    /// It is being written.
    Writing,
    /// Its times or rights changed.
    Touched,
    /// It came or went, or nobody knows.
    Unclear,
}

impl Notice {
    pub(super) fn of(kind: &EventKind) -> Self {
        match kind {
            EventKind::Access(AccessKind::Close(_)) => Notice::Whole,
            EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
                Notice::Placed
            }
            EventKind::Modify(ModifyKind::Data(DataChange::Any)) if TELLS_CLOSE => Notice::Writing,
            EventKind::Modify(ModifyKind::Metadata(_)) => Notice::Touched,
            _ => Notice::Unclear,
        }
    }
}

/// A path that may have changed and waits to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    first: Instant,
    last: Instant,
    notice: Notice,
    /// Whether the way to it may have changed.
    elsewhere: bool,
    /// Whether it was waited for although it seemed whole.
    waited: bool,
}

impl Pending {
    /// Enters a notice.
    pub(super) fn note(pending: &mut Option<Pending>, notice: Notice, now: Instant) {
        let elsewhere = matches!(notice, Notice::Placed | Notice::Unclear);
        match pending {
            None => {
                let (first, waited) = (now, false);
                *pending = Some(Pending { first, last: now, notice, elsewhere, waited });
            }
            Some(pending) => {
                pending.last = now;
                pending.elsewhere |= elsewhere;
                // Who touches a file that is whole leaves it whole.
                if notice != Notice::Touched {
                    pending.notice = notice;
                }
            }
        }
    }

    /// Something that changed between two looks without any notice.
    pub(super) fn unnoticed(first: Instant, now: Instant) -> Self {
        Pending { first, last: now, notice: Notice::Unclear, elsewhere: true, waited: false }
    }

    /// The same once more, as it changed while it was looked at.
    pub(super) fn again(self, now: Instant) -> Self {
        Pending { last: now, notice: Notice::Unclear, ..self }
    }

    /// The same a little later, if it has not been waited for yet: what was seen looks like half of
    /// a change.
    pub(super) fn patient(self, now: Instant) -> Option<Self> {
        let has_waited = self.waited || !self.is_whole();
        let notice = Notice::Unclear;
        (!has_waited).then_some(Pending { last: now, notice, waited: true, ..self })
    }

    fn is_whole(&self) -> bool {
        matches!(self.notice, Notice::Whole | Notice::Placed)
    }

    /// When it began to change.
    pub(super) fn first(&self) -> Instant {
        self.first
    }

    /// Whether links and folders on the way must be looked at again.
    pub(super) fn may_lead_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// When to look.
    pub(super) fn due(&self) -> Instant {
        match self.notice {
            Notice::Whole | Notice::Placed => (self.last + WHOLE).min(self.first + LONGEST),
            Notice::Writing => self.last + OPEN,
            Notice::Touched | Notice::Unclear => self.last + DEBOUNCE,
        }
    }
}

/// When to look next: those that are whole are looked at together, the others hold them up no
/// longer.
pub(super) fn next<'p>(pending: impl Iterator<Item = &'p Pending>) -> Option<Instant> {
    let (whole, others): (Vec<&Pending>, Vec<&Pending>) =
        pending.partition(|pending| pending.is_whole());
    let whole = whole.iter().map(|pending| pending.due()).max();
    let others = others.iter().map(|pending| pending.due()).min();
    whole.into_iter().chain(others).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds from the first notice until the look, for notices that come so many
    /// milliseconds after it.
    fn waits(notices: &[(Notice, u64)]) -> u128 {
        let begin = Instant::now();
        let mut pending = None;
        for (notice, after) in notices {
            Pending::note(&mut pending, *notice, begin + Duration::from_millis(*after));
        }
        pending.unwrap().due().duration_since(begin).as_millis()
    }

    #[test]
    fn a_save_is_seen_at_once_and_anything_else_later() {
        use Notice::{Placed, Touched, Unclear, Whole, Writing};
        assert_eq!(waits(&[(Writing, 0), (Writing, 3), (Whole, 5)]), 15, "written and closed");
        assert_eq!(waits(&[(Placed, 0)]), 10, "renamed into its place");
        assert_eq!(waits(&[(Whole, 0), (Touched, 4)]), 14, "rights set afterwards");
        assert_eq!(waits(&[(Unclear, 0), (Unclear, 1), (Writing, 2), (Whole, 3)]), 13, "vim");
        assert_eq!(waits(&[(Writing, 0), (Writing, 700)]), 1700, "half-written");
        assert_eq!(waits(&[(Unclear, 0)]), 200, "gone");
        assert_eq!(waits(&[(Touched, 0)]), 200, "touched");
        let burst: Vec<_> = (0..1000).map(|at| (Whole, at * 5)).collect();
        assert_eq!(waits(&burst), 2000, "a burst does not put it off for ever");
    }

    #[test]
    fn files_saved_together_are_looked_at_together() {
        let begin = Instant::now();
        let at = |notice, after| {
            let mut pending = None;
            Pending::note(&mut pending, notice, begin + Duration::from_millis(after));
            pending.unwrap()
        };
        let all = [at(Notice::Whole, 0), at(Notice::Whole, 8), at(Notice::Writing, 3)];
        assert_eq!(next(all.iter()), Some(begin + Duration::from_millis(18)));
        assert_eq!(next(all[2..].iter()), Some(begin + Duration::from_millis(1003)));
        assert_eq!(next([].iter()), None);
    }

    #[test]
    fn what_looks_like_half_a_change_is_waited_for_once() {
        let now = Instant::now();
        let mut pending = None;
        Pending::note(&mut pending, Notice::Whole, now);
        let patient = pending.unwrap().patient(now).unwrap();
        assert_eq!(patient.due(), now + DEBOUNCE);
        assert!(patient.patient(now).is_none());
    }
}
