//! Records: a plan's workflow as one text that runs again and gives the same.

use std::collections::HashMap;

use crate::diagnostic::Place;
use crate::graph::{Graph, GraphInput};

/// A change of one of the graph's texts.
#[derive(Debug)]
pub(crate) struct Edit {
    place: Place,
    text: String,
}

impl Edit {
    /// Writes `literal` as the default of an input.
    pub(crate) fn input(input: &GraphInput, literal: &str) -> Self {
        match input.default {
            Some(place) => Edit::replace(place, literal.to_owned()),
            None => {
                let mut place = input.place;
                place.span.start += 1;
                place.span.end = place.span.start;
                Edit::replace(place, format!("default: {literal}, "))
            }
        }
    }

    /// Writes `text` in place of what stands at `place`.
    pub(crate) fn replace(place: Place, text: String) -> Self {
        Edit { place, text }
    }
}

/// The root's text after `edits`, with the other graphs that it uses carried inside.
pub(crate) fn record(graph: &Graph, edits: Vec<Edit>) -> String {
    let mut by_file: HashMap<u32, Vec<Edit>> = HashMap::new();
    edits.into_iter().for_each(|edit| by_file.entry(edit.place.file).or_default().push(edit));
    let sites = &graph.sites;
    if !sites.others.is_empty() {
        let mut carried = String::new();
        for (name, file) in &sites.others {
            let text =
                edited(&graph.files[*file as usize].text, by_file.remove(file).unwrap_or_default());
            let name = kino_port::Literal::text(name.clone());
            carried.push_str(&format!(
                "\n        {name}: {},",
                text.trim().replace('\n', "\n        ")
            ));
        }
        let (at, text) = match sites.graphs_opening {
            Some(at) => (at, carried),
            None => (sites.opening, format!("\n    graphs: {{{carried}\n    }},")),
        };
        let span = crate::diagnostic::Span { start: at, end: at };
        by_file.entry(0).or_default().push(Edit::replace(Place { file: 0, span }, text));
    }
    edited(&graph.files[0].text, by_file.remove(&0).unwrap_or_default())
}

fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.place.span.start);
    let mut result = String::with_capacity(text.len() + 256);
    let mut done = 0;
    for edit in edits {
        let (start, end) = (edit.place.span.start as usize, edit.place.span.end as usize);
        result.push_str(text.get(done..start).unwrap_or_default());
        result.push_str(&edit.text);
        done = end;
    }
    result.push_str(text.get(done..).unwrap_or_default());
    result
}
