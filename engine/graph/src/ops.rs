//! Which ops a graph names, before anything is known of them: what has to be found and loaded for
//! it. Nothing is said of what is wrong: a graph that cannot be read, or whose syntax is broken,
//! names none, and a node that is malformed is left out. Each graph is read once, so graphs that
//! use each other end it, too.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::GraphLoader;
use crate::diagnostic::{Report, Span};
use crate::parse::{self, Document};
use crate::paths::{folder, is_graph, join};

/// See [`crate::Parsed::ops`].
pub(crate) fn named_ops(
    name: &str,
    text: &str,
    document: Option<&Document<'_>>,
    sources: &dyn GraphLoader,
) -> BTreeSet<String> {
    let own = name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned();
    let mut reader = Reader { sources, known: HashMap::from([(own, None)]), ops: BTreeSet::new() };
    let mut waiting = VecDeque::new();
    if let Some(document) = document {
        reader.note(document, || text.into(), "", &mut waiting);
    }
    while let Some(part) = waiting.pop_front() {
        let document = parse::parse(0, &part.text, part.span, &mut Report::default());
        if let Some(document) = document {
            reader.note(&document, || Arc::clone(&part.text), &part.dir, &mut waiting);
        }
    }
    reader.ops
}

/// A graph's text, or a piece of a file that carries it.
struct Part {
    text: Arc<str>,
    span: Span,
    /// Where paths in it lead from, seen from the root: empty, or with `/` at its end.
    dir: String,
}

struct Reader<'s> {
    sources: &'s dyn GraphLoader,
    /// By path: graphs carried in a file that was read, or nothing for one that has been taken.
    known: HashMap<String, Option<(Arc<str>, Span)>>,
    ops: BTreeSet<String>,
}

impl Reader<'_> {
    /// Notes what a document in the folder `dir` names.
    fn note(
        &mut self,
        document: &Document<'_>,
        text: impl Fn() -> Arc<str>,
        dir: &str,
        waiting: &mut VecDeque<Part>,
    ) {
        for (name, span) in &document.graphs {
            self.known.entry(join(dir, &name.text)).or_insert_with(|| Some((text(), *span)));
        }
        for node in &document.nodes {
            if is_graph(&node.op.text) {
                waiting.extend(self.open(join(dir, &node.op.text)));
            } else if !self.ops.contains(&*node.op.text) {
                self.ops.insert(node.op.text.to_string());
            }
        }
    }

    /// The graph at `path`, unless it was opened before or cannot be read.
    fn open(&mut self, path: String) -> Option<Part> {
        let (text, span) = match self.known.insert(path.clone(), None) {
            Some(None) => return None,
            Some(Some(carried)) => carried,
            None => {
                let text: Arc<str> = self.sources.read(&path).ok()?.into();
                let span = Span::new(0, text.len());
                (text, span)
            }
        };
        let dir = folder(&path);
        Some(Part { text, span, dir })
    }
}
