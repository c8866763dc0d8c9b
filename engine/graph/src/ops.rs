//! Which ops a graph names, before anything is known of them: what has to be found and loaded for
//! it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::GraphLoader;
use crate::diagnostic::{Report, Span};
use crate::parse;
use crate::paths::{folder, is_graph, join};

/// The ops that a graph names, and those of the graphs that it uses, by whatever way.
///
/// It says nothing of what is wrong: a graph that cannot be read, or whose syntax is broken, names
/// none, a node that is malformed is left out, and [`crate::check`] reports them. Each graph is
/// read once, so graphs that use each other end it, too.
pub fn ops(name: &str, text: &str, sources: &dyn GraphLoader) -> BTreeSet<String> {
    let own = name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned();
    let root = Part { text: text.into(), span: Span::new(0, text.len()), dir: String::new() };
    let mut reader = Reader { sources, known: HashMap::from([(own, None)]), ops: BTreeSet::new() };
    let mut waiting = VecDeque::from([root]);
    while let Some(part) = waiting.pop_front() {
        reader.read(&part, &mut waiting);
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
    fn read(&mut self, part: &Part, waiting: &mut VecDeque<Part>) {
        let Some(document) = parse::parse(0, &part.text, part.span, &mut Report::default()) else {
            return;
        };
        for (name, span) in &document.graphs {
            let carried = Some((Arc::clone(&part.text), *span));
            self.known.entry(join(&part.dir, &name.text)).or_insert(carried);
        }
        for node in document.nodes {
            if is_graph(&node.op.text) {
                waiting.extend(self.open(join(&part.dir, &node.op.text)));
            } else {
                self.ops.insert(node.op.text);
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
