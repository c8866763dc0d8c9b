//! `repeat`: the body is opened once for each turn, as a graph used as a node is. What is carried
//! leads from a turn to the one before it; what is collected is joined by a node, or a list.

use std::sync::Arc;

use kino_port::{Literal, Port, PortType, REPEAT};

use super::{Caller, Entity, Expander, MAX_BYTES, MOST, Op, RawNode, missing, takes};
use super::{Repeat, RepeatOutput, RepeatSource};
use crate::convert::conversion;
use crate::declare::{GraphInput, declared};
use crate::diagnostic::Location;
use crate::names::NameIndex;
use crate::parse::{self, Document, Ident, NodeDecl};
use crate::paths::folder;
use crate::raw::{RawInput, TurnOutput, raw_inputs};
use crate::ron::AstKind;
use crate::step::Turn;

/// The input of a body that is given the number of the turn.
const INDEX: &str = "index";

/// Turns that are opened while a graph is checked: the second one takes what the first one gave,
/// and all that follow are like it.
const CHECKED: usize = 2;

/// A loop as it is written.
struct Loop<'l> {
    scope: usize,
    name: &'l Arc<str>,
    /// Its name in the file.
    location: Location,
    /// Its body, as written.
    graph: &'l Ident,
}

/// The graph that a loop repeats.
struct Body<'a> {
    file: u32,
    path: String,
    /// The length of its text in bytes.
    length: usize,
    document: Document<'a>,
    inputs: Vec<GraphInput>,
    /// By output: the input that takes it in the next turn.
    carried: Vec<Option<usize>>,
    /// The input that is given the number of the turn.
    index: Option<usize>,
}

impl Body<'_> {
    /// The place of the edge of an output.
    fn edge(&self, output: usize) -> Location {
        Location { file: self.file, span: self.document.outputs[output].1.span }
    }

    /// How many nodes, inputs and outputs a turn has.
    fn parts(&self) -> usize {
        let Document { nodes, outputs, .. } = &self.document;
        1 + self.inputs.len() + nodes.len() + outputs.len()
    }
}

impl Expander<'_> {
    /// Opens the body of a `repeat` once for each turn.
    pub(super) fn repeat(
        &mut self,
        scope: usize,
        name: Arc<str>,
        mut decl: NodeDecl<'_>,
    ) -> Entity {
        let file = self.result.scopes[scope].file;
        let location = Location { file, span: decl.name.span };
        if let Some((outer, at)) = self.repeating.clone() {
            let own = &decl.name.text;
            let message = format!("`{own}` lies in the body of `{outer}`: loops are not nested");
            let at_op = Location { file, span: decl.op.span };
            let problem = self.report.error("repeat", at_op, message);
            problem.hint = Some("repeat a body that does all of it in one turn".to_owned());
            problem.related.push((at, "the loop around it".to_owned()));
            return Entity::Broken;
        }
        let Some(graph) = self.graph_of(file, &name, &mut decl) else { return Entity::Broken };
        let Some((path, of, span)) = self.locate(scope, &graph) else { return Entity::Broken };
        let text = Arc::clone(&self.result.files[of as usize].text);
        let Some(document) = parse::parse(of, &text, span, self.report) else {
            return Entity::Broken;
        };
        self.carried_as(of, &document, &text);
        let inputs: Vec<_> =
            document.inputs.iter().map(|decl| declared(of, decl, self.report)).collect();
        let at = Loop { scope, name: &name, location, graph: &graph };
        let length = (span.end - span.start) as usize;
        let Some(body) = self.body(&at, (of, path, length), document, inputs) else {
            return Entity::Broken;
        };
        let ports: Vec<Port> = body.inputs.iter().map(|input| input.port.clone()).collect();
        let mut written = raw_inputs(file, &decl, (&graph.text, &with_times(&ports)), self.report);
        let times = written.remove(0);
        if let Some(index) = body.index
            && let Some(fed) = &written[index]
        {
            let message = format!("`{INDEX}` of `{name}` is given: it is the number of the turn");
            self.report.error("repeat", fed.location(file), message);
            return Entity::Broken;
        }
        match times {
            _ if decl.bypass || self.result.scopes[scope].dropped => {
                Entity::Scope(self.turn(&at, &body, &written, 0, decl.bypass))
            }
            Some(times) => self.turns(&at, &body, written, times),
            None => {
                self.report.push(missing(&name, &times_port(), location));
                Entity::Broken
            }
        }
    }

    /// The path of the body, taken out of what is written.
    fn graph_of(&mut self, file: u32, name: &str, decl: &mut NodeDecl<'_>) -> Option<Ident> {
        if let Some((word, _)) = decl.edges.iter().find(|(word, _)| word.text == "graph") {
            let message = format!("`graph` of `{name}` must be known before anything runs");
            let location = Location { file, span: word.span };
            self.report.error("repeat", location, message).hint =
                Some("write it out: `with: {\"graph\": \"./….ron\"}`".to_owned());
            return None;
        }
        let Some(at) = decl.literals.iter().position(|(word, _)| word.text == "graph") else {
            let location = Location { file, span: decl.name.span };
            let message = format!("`{name}` does not say which graph it repeats");
            self.report.error("missing-input", location, message).hint =
                Some("write `with: {\"graph\": \"./….ron\"}`".to_owned());
            return None;
        };
        let (_, ast) = decl.literals.remove(at);
        let location = Location { file, span: ast.span };
        match ast.kind {
            AstKind::Text(text) if text.len() <= Ident::LONGEST => {
                Some(Ident { text: text.into_owned(), span: ast.span })
            }
            AstKind::Text(text) => {
                let (len, most) = (text.len(), Ident::LONGEST);
                let message = format!("this path is {len} bytes long, at most {most} fit");
                self.report.error("too-long", location, message);
                None
            }
            other => {
                let message =
                    format!("expected the path of a graph in quotes, found {}", other.noun());
                self.report.error("malformed", location, message);
                None
            }
        }
    }

    /// What a body carries and counts; nothing, and said, where it cannot be a body.
    fn body<'a>(
        &mut self,
        at: &Loop<'_>,
        (file, path, length): (u32, String, usize),
        document: Document<'a>,
        inputs: Vec<GraphInput>,
    ) -> Option<Body<'a>> {
        let position =
            |name: &str| inputs.iter().position(|input| input.port.name.as_ref() == name);
        let mut fits = true;
        for port in REPEAT.inputs.iter() {
            let Some(taken) = position(&port.name) else { continue };
            let message =
                format!("`{}` belongs to `repeat`: its body has no such input", port.name);
            let problem = self.report.error("repeat", inputs[taken].location, message);
            problem.related.push((at.location, "repeated here".to_owned()));
            fits = false;
        }
        let index = position(INDEX);
        if let Some(index) = index
            && !index_fits(&inputs[index].port)
        {
            let ty = &inputs[index].port.ty;
            let message =
                format!("`{INDEX}` of a body is the number of the turn: an Int, found {ty}");
            let problem = self.report.error("repeat", inputs[index].location, message);
            problem.related.push((at.location, "repeated here".to_owned()));
            fits = false;
        }
        let carried: Vec<_> =
            document.outputs.iter().map(|(name, _)| position(&name.text)).collect();
        let body = Body { file, path, length, document, inputs, carried, index };
        if let Some(output) = body.carried.iter().position(|to| to.is_some() && *to == index) {
            let message =
                format!("no output of a body is called `{INDEX}`: `repeat` counts itself");
            self.report.error("repeat", body.edge(output), message);
            fits = false;
        }
        fits.then_some(body)
    }

    /// Opens all turns.
    fn turns(
        &mut self,
        at: &Loop<'_>,
        body: &Body<'_>,
        mut written: Vec<Option<RawInput>>,
        times: RawInput,
    ) -> Entity {
        let ports: Vec<Port> = body.inputs.iter().map(|input| input.port.clone()).collect();
        if let Some(index) = body.index {
            written[index] = Some(RawInput::Literal(Arc::new(Literal::Int(0)), at.location));
        }
        self.require(at.location, at.name, &ports, &written);
        let count = match (self.turns.get(at.name), &times) {
            (Some(count), _) => *count,
            (None, RawInput::Literal(literal, _)) => match **literal {
                Literal::Int(count) => usize::try_from(count).map_or(CHECKED, |n| n.min(CHECKED)),
                _ => CHECKED,
            },
            (None, _) => CHECKED,
        };
        let file = self.result.scopes[at.scope].file;
        if !self.has_room(at, body, count, times.location(file)) {
            return Entity::Broken;
        }
        let mut turns = Vec::with_capacity(count);
        for turn in 0..count {
            if let (Some(index), Some(at_port)) = (body.index, body.index.map(|at| &ports[at])) {
                let number = Literal::Int(turn as i128);
                if let Err(error) = at_port.check(&number) {
                    let message = format!("`{INDEX}` of `{}/{turn}`: {}", at.name, error.message);
                    self.report.error("value", body.inputs[index].location, message).hint =
                        error.hint;
                    return Entity::Broken;
                }
                written[index] = Some(RawInput::Literal(Arc::new(number), at.location));
            }
            if let Some(before) = turns.last() {
                carry(body, *before, &mut written);
            }
            turns.push(self.turn(at, body, &written, turn, false));
            if turn == 0 && !self.carried_fit(at, body, turns[0]) {
                return Entity::Broken;
            }
        }
        let outputs = (0..body.document.outputs.len())
            .map(|output| self.collected(at, body, &turns, output))
            .collect::<Vec<_>>();
        let output_index = NameIndex::of(outputs.iter().map(|output| &*output.name));
        let (name, location, scope) = (Arc::clone(at.name), at.location, at.scope);
        let repeat = Repeat { name, location, scope, times, turns, outputs, output_index };
        self.result.repeats.push(repeat);
        Entity::Repeat(self.result.repeats.len() - 1)
    }

    /// Whether so many turns fit into what a graph may have.
    fn has_room(
        &mut self,
        at: &Loop<'_>,
        body: &Body<'_>,
        count: usize,
        location: Location,
    ) -> bool {
        let parts = self.parts.saturating_add(body.parts().saturating_mul(count));
        let bytes = self.bytes.saturating_add(body.length.saturating_mul(count.saturating_sub(1)));
        let reason = match (parts > MOST, bytes > MAX_BYTES) {
            (true, _) => format!("over {MOST} parts"),
            (_, true) => format!("texts of over {} MiB", MAX_BYTES >> 20),
            _ => {
                self.bytes = bytes;
                return true;
            }
        };
        let message =
            format!("`{}` is too long: {count} turns and all the rest are {reason}", at.name);
        self.report.error("too-large", location, message).hint =
            Some("repeat fewer times, or do more in one turn".to_owned());
        false
    }

    /// Opens one turn, and gives its scope.
    fn turn(
        &mut self,
        at: &Loop<'_>,
        body: &Body<'_>,
        written: &[Option<RawInput>],
        turn: usize,
        bypass: bool,
    ) -> usize {
        self.parts += body.parts();
        let inner = self.result.scopes.len();
        let of = self.result.repeats.len() as u32;
        let number = Turn { of, number: turn as u32 };
        let inputs = written.to_vec();
        let caller = Caller { scope: at.scope, inputs, bypass, turn: Some(number) };
        let name = if bypass { at.name.to_string() } else { format!("{}/{turn}", at.name) };
        self.stack.push(body.path.clone());
        self.repeating = Some((Arc::clone(at.name), at.location));
        let (document, inputs) = (body.document.clone(), body.inputs.clone());
        self.open(body.file, document, inputs, &folder(&body.path), &name, Some(caller));
        self.repeating = None;
        self.stack.pop();
        inner
    }

    /// Whether each output that is carried is of the type of the input that takes it, going by what
    /// is declared.
    fn carried_fit(&mut self, at: &Loop<'_>, body: &Body<'_>, scope: usize) -> bool {
        let mut fit = true;
        for (output, to) in body.carried.iter().enumerate() {
            let Some(to) = to else { continue };
            let (name, edge) = &body.document.outputs[output];
            let port = &body.inputs[*to].port;
            let from = self.result.declared_type(scope, &edge.text);
            let Some(from) = from.filter(|from| !is_any(from) && !takes(port, from)) else {
                continue;
            };
            let (name, body_name, takes) = (&name.text, &at.graph.text, &port.ty);
            let message = format!(
                "`{name}` is carried from turn to turn, but `{body_name}` gives {from} and takes \
                 {takes}"
            );
            let hint = conversion(self.catalog, &from, &port.ty);
            let problem = self.report.error("type", body.edge(output), message);
            problem.hint = hint;
            problem.related.push((body.inputs[*to].location, "the input".to_owned()));
            fit = false;
        }
        fit
    }

    /// What a loop gives as one of the body's outputs.
    fn collected(
        &mut self,
        at: &Loop<'_>,
        body: &Body<'_>,
        turns: &[usize],
        output: usize,
    ) -> RepeatOutput {
        let (name, edge) = &body.document.outputs[output];
        let name: Arc<str> = Arc::from(&*name.text);
        let all = || turns.iter().map(|scope| TurnOutput { scope: *scope, output });
        if body.carried[output].is_some() {
            let last =
                all().next_back().map_or(RepeatSource::Listed(Vec::new()), RepeatSource::Last);
            return RepeatOutput { name, source: last };
        }
        let ty = turns.first().and_then(|scope| self.result.declared_type(*scope, &edge.text));
        let Some((op, port)) = ty.and_then(|ty| self.joiner(&ty)) else {
            return RepeatOutput { name, source: RepeatSource::Listed(all().collect()) };
        };
        let mut inputs = vec![None; op.signature.inputs.len()];
        inputs[port] = Some(RawInput::Turns(all().collect(), body.edge(output)));
        let (full, location, scope) = (format!("{}/{name}", at.name).into(), at.location, at.scope);
        let node = RawNode { name: full, op, location, scope, bypass: false, inputs };
        self.result.nodes.push(node);
        RepeatOutput { name, source: RepeatSource::Joined(self.result.nodes.len() - 1) }
    }

    /// The op that puts values of a type one after another, and its list port.
    fn joiner(&mut self, ty: &PortType) -> Option<(Arc<Op>, usize)> {
        let list = |op: &str| {
            let signature = self.catalog.signature(op).filter(|op| op.traits.joins)?;
            let [output] = &*signature.outputs else { return None };
            let takes = |port: &Port| port.is_list() && port.ty == *ty;
            let port = signature.inputs.iter().position(takes).filter(|_| output.ty == *ty)?;
            let mut others = signature.inputs.iter().enumerate().filter(|(at, _)| *at != port);
            others.all(|(_, other)| !other.is_required()).then_some(port)
        };
        let found = self.catalog.names().into_iter().find_map(|op| Some((op, list(op)?)));
        let (op, port) = found.map(|(op, port)| (op.to_owned(), port))?;
        Some((self.op(&op)?, port))
    }
}

/// Lets the inputs that are carried take what the turn in scope `before` gave.
fn carry(body: &Body<'_>, before: usize, written: &mut [Option<RawInput>]) {
    for (output, to) in body.carried.iter().enumerate() {
        let Some(to) = *to else { continue };
        let (name, edge) = &body.document.outputs[output];
        // What a turn hands on as it came is the same in all of them.
        if edge.text.strip_prefix("inputs.") != Some(&name.text) {
            let from = TurnOutput { scope: before, output };
            written[to] = Some(RawInput::Turn(from, body.edge(output)));
        }
    }
}

/// The ports of a loop whose body has these.
fn with_times(ports: &[Port]) -> Vec<Port> {
    let own = ports.iter().cloned();
    [times_port()].into_iter().chain(own).collect()
}

/// The port that says how often.
pub(crate) fn times_port() -> Port {
    let found = REPEAT.input("times").map(|(_, port)| port.clone());
    found.unwrap_or_else(|| kino_port::int("times", 1).required())
}

fn index_fits(port: &Port) -> bool {
    port.ty == PortType::Int && !port.is_list()
}

fn is_any(ty: &PortType) -> bool {
    *ty == PortType::Any
}
