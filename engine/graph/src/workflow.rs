//! Embedded workflows: a plan's graph as one text that runs again and gives the same.

use std::collections::HashMap;

use crate::check::CheckedGraph;
use crate::declare::GraphInput;
use crate::diagnostic::{Location, Span};

/// A change of one of the graph's texts.
#[derive(Debug)]
pub(crate) struct Edit {
    location: Location,
    text: String,
}

impl Edit {
    /// Writes `literal` as the default of an input.
    pub(crate) fn input(input: &GraphInput, literal: &str) -> Self {
        match input.default {
            Some(location) => Edit::replace(location, literal.to_owned()),
            None => {
                let span = Span { start: input.opening, end: input.opening };
                let location = Location { span, ..input.location };
                Edit::replace(location, format!("default: {literal}, "))
            }
        }
    }

    /// Writes `text` in place of what stands at `location`.
    pub(crate) fn replace(location: Location, text: String) -> Self {
        Edit { location, text }
    }
}

/// The root's text after `edits`, with the other graphs that it uses carried inside.
pub(crate) fn embedded_workflow(graph: &CheckedGraph, edits: Vec<Edit>) -> String {
    let mut by_file: HashMap<u32, Vec<Edit>> = HashMap::new();
    edits.into_iter().for_each(|edit| by_file.entry(edit.location.file).or_default().push(edit));
    let spans = &graph.spans;
    if !spans.others.is_empty() {
        let mut carried = String::new();
        for (name, file, start) in &spans.others {
            // The text stays as it is, line breaks within strings included; it may end in a line
            // comment.
            let head = Span { start: 0, end: *start };
            let edits = by_file.entry(*file).or_default();
            edits.push(Edit::replace(Location { file: *file, span: head }, String::new()));
            let text =
                edited(&graph.files[*file as usize].text, by_file.remove(file).unwrap_or_default());
            let (name, text) = (kino_port::Literal::text(name.clone()), text.trim().to_owned());
            carried.push_str(&format!("\n        {name}: {text}\n        ,"));
        }
        let (at, text) = match spans.graphs_opening {
            Some(at) => (at, carried),
            None => {
                let rest = graph.files[0].text.get(spans.opening as usize..).unwrap_or_default();
                let gap = if rest.starts_with(char::is_whitespace) { "" } else { "\n    " };
                (spans.opening, format!("\n    graphs: {{{carried}\n    }},{gap}"))
            }
        };
        let span = Span { start: at, end: at };
        by_file.entry(0).or_default().push(Edit::replace(Location { file: 0, span }, text));
    }
    edited(&graph.files[0].text, by_file.remove(&0).unwrap_or_default())
}

fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.location.span.start);
    let mut result = String::with_capacity(text.len() + 256);
    let mut done = 0;
    for edit in edits {
        let (start, end) = (edit.location.span.start as usize, edit.location.span.end as usize);
        result.push_str(text.get(done..start).unwrap_or_default());
        result.push_str(&edit.text);
        done = end;
    }
    result.push_str(text.get(done..).unwrap_or_default());
    result
}
