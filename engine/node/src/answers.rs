//! Answers of services outside of this machine, which what a graph writes keeps beside its text, so
//! that it runs again without them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Puts answers into a record.
pub type EmbedAnswers = dyn Fn(&str, &BTreeMap<String, String>) -> String + Send + Sync;

/// The answers of a run, by what identifies each question: a service of the run.
pub struct Answers {
    /// What the graph was recorded with.
    recorded: BTreeMap<String, String>,
    /// What was used.
    used: Mutex<BTreeMap<String, String>>,
    embed: Box<EmbedAnswers>,
}

impl Answers {
    /// The answers of a graph that was `recorded` with some; `embed` puts those that are used into
    /// its record.
    pub fn new(
        recorded: BTreeMap<String, String>,
        embed: impl Fn(&str, &BTreeMap<String, String>) -> String + Send + Sync + 'static,
    ) -> Self {
        Answers { recorded, used: Mutex::default(), embed: Box::new(embed) }
    }

    /// The answer that the graph was recorded with.
    pub fn recorded(&self, question: &str) -> Option<&str> {
        self.recorded.get(question).map(String::as_str)
    }

    /// Notes that an answer is used.
    pub fn note(&self, question: &str, answer: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(question.to_owned(), answer.to_owned());
    }

    /// A record with the answers that are used by now.
    pub(crate) fn embedded(&self, record: &str) -> Option<String> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (!used.is_empty() && !record.is_empty()).then(|| (self.embed)(record, &used))
    }
}
