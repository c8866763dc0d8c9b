//! Rules that make prompts longer.

use kino_plugin::prelude::*;

/// The rules of a file.
#[derive(Default)]
pub(crate) struct Rules {
    /// Words in lower case, and what takes their place; the longest first.
    replaced: Vec<(Vec<String>, String)>,
    added: Vec<Addition>,
}

/// A phrase that is added where words are missing.
struct Addition {
    before: bool,
    unless: Vec<String>,
    phrase: String,
}

impl Rules {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// When a line is no rule; the message names it.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut rules = Rules::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                rules.take(line).map_err(|error| error.at(format!("line {}", index + 1)))?;
            }
        }
        rules.replaced.sort_by_key(|(words, _)| std::cmp::Reverse(words.len()));
        Ok(rules)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let no_rule = || Error::new(format!("expected `words = phrase`, found `{line}`"));
        let (left, phrase) = line.split_once('=').ok_or_else(no_rule)?;
        let words: Vec<String> = left.split_whitespace().map(str::to_lowercase).collect();
        let phrase = phrase.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.split_first() {
            None => return Err(no_rule()),
            Some((first, unless))
                if !unless.is_empty() && ["before", "after"].contains(&&**first) =>
            {
                ensure!(!phrase.is_empty(), "there is nothing to be added in `{line}`");
                let (before, unless) = (first == "before", unless.to_vec());
                self.added.push(Addition { before, unless, phrase });
            }
            Some(_) => self.replaced.push((words, phrase)),
        }
        Ok(())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.replaced.len() + self.added.len()
    }

    /// The full prompt.
    pub(crate) fn expand(&self, text: &str) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (mut made, mut at) = (Vec::new(), 0);
        while at < words.len() {
            let here = self.replaced.iter().find(|(rule, _)| begins(&words[at..], rule));
            let (phrase, length) = match here {
                Some((rule, phrase)) => {
                    let (_, mark) = bare(words[at + rule.len() - 1]);
                    (format!("{phrase}{mark}"), rule.len())
                }
                None => (words[at].to_owned(), 1),
            };
            made.push(phrase);
            at += length;
        }
        made.retain(|phrase| !phrase.is_empty());
        let mut text = made.join(" ");
        for Addition { before, unless, phrase } in &self.added {
            let said =
                |word: &String| text.split_whitespace().any(|w| bare(w).0.to_lowercase() == *word);
            if !unless.iter().any(said) {
                let parts = if *before { [phrase, &text] } else { [&text, phrase] };
                text = parts.map(|part| part.trim()).join(" ").trim().to_owned();
            }
        }
        text
    }
}

/// A word without the punctuation at its end, and that.
fn bare(word: &str) -> (&str, &str) {
    let bare = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
    (bare, &word[bare.len()..])
}

/// Whether words begin with those of a rule; punctuation may only follow the last.
fn begins(words: &[&str], rule: &[String]) -> bool {
    let same = |(index, rule_word): (usize, &String)| {
        let word = words[index];
        let word = if index + 1 == rule.len() { bare(word).0 } else { word };
        word.to_lowercase() == *rule_word
    };
    words.len() >= rule.len() && rule.iter().enumerate().all(same)
}
