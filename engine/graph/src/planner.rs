//! Planning: asks every needed node what is known of its results, and gives each step its key.

use std::collections::HashMap;
use std::sync::Arc;

use kino_port::{Fact, Facts, Literal, Objection, Port, PortType, Survey};
use petgraph::Direction;
use petgraph::graph::NodeIndex;

use crate::Catalog;
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity, suggest};
use crate::graph::{Feed, FeedSource, Graph, Node, Piece};
use crate::literal::from_command_line;
use crate::plan::{Input, Item, Key, Plan, Source, Step};
use crate::record::Edit;
use crate::template::sanitise;

/// What a plan depends on besides the graph.
pub struct Settings<'s> {
    /// Values for the graph's inputs; the others take their defaults.
    pub inputs: &'s [(String, Literal)],
    /// Stop at this node, rather than run everything that is wanted.
    pub until: Option<&'s str>,
    /// Whatever else changes the numbers: device, compute type, kernels, versions. It enters every key.
    pub environment: &'s [u8],
    /// Draws a random number, for a seed of `"random"`.
    pub draw: &'s dyn Fn() -> u64,
    /// What `{graph}` stands for: the stem of the graph's file.
    pub stem: &'s str,
}

/// A node's results while planning.
struct Known {
    key: Key,
    facts: Vec<Fact>,
    inputs: Vec<Input>,
    survey: Survey,
    objections: Vec<Objection>,
    /// Something before it was refused, so that nothing can be said of it.
    blind: bool,
}

struct Planner<'p> {
    graph: &'p Graph,
    catalog: &'p dyn Catalog,
    settings: &'p Settings<'p>,
    values: Vec<Option<Literal>>,
    drawn: HashMap<Place, Literal>,
    problems: Vec<Diagnostic>,
    known: HashMap<NodeIndex, Known>,
    edits: Vec<Edit>,
    ports: HashMap<*const crate::graph::Op, Arc<[Arc<str>]>>,
}

impl Graph {
    /// Decodes a value from the command line, unquoted, by the type of the graph's input `name`.
    ///
    /// # Errors
    /// When there is no such input, or the value does not fit it.
    pub fn read_input(&self, name: &str, raw: &str) -> Result<Literal, Diagnostics> {
        let problem = |code, message: String, hint: Option<String>| {
            let diagnostic =
                Diagnostic { place: None, ..Diagnostic::error(code, Place::default(), message) };
            Diagnostics::new(vec![diagnostic.maybe_hint(hint)], self.files.clone())
        };
        let names = self.inputs.iter().map(|input| &*input.port.name);
        let Some(input) = self.inputs.iter().find(|input| input.port.name == name) else {
            return Err(problem(
                "unknown-input",
                format!("the graph has no input `{name}`"),
                suggest(name, names),
            ));
        };
        from_command_line(raw, &input.port).map_err(|refusal| {
            problem("value", format!("input `{name}`: {}", refusal.message), refusal.hint)
        })
    }

    /// Plans a run.
    ///
    /// # Errors
    /// Every objection of every node, and every value that does not fit.
    pub fn plan(
        &self,
        catalog: &dyn Catalog,
        settings: &Settings<'_>,
    ) -> Result<Plan, Diagnostics> {
        let mut planner = Planner {
            graph: self,
            catalog,
            settings,
            values: Vec::new(),
            drawn: HashMap::new(),
            problems: Vec::new(),
            known: HashMap::new(),
            edits: Vec::new(),
            ports: HashMap::new(),
        };
        planner.set_values();
        let targets = planner.targets();
        let reached = planner.reach(&targets, false);
        if planner.problems.is_empty() {
            for index in self.order.iter().filter(|index| reached[index.index()]) {
                let known = planner.survey(*index);
                planner.known.insert(*index, known);
            }
        }
        planner.finish(&targets)
    }
}

impl Planner<'_> {
    /// Takes the value of every graph input: set, default, or drawn.
    fn set_values(&mut self) {
        let graph = self.graph;
        for (name, _) in self.settings.inputs {
            if !graph.inputs.iter().any(|input| input.port.name == *name) {
                let hint = suggest(name, graph.inputs.iter().map(|input| &*input.port.name));
                let message = format!("the graph has no input `{name}`");
                self.refuse("unknown-input", None, message, hint);
            }
        }
        for input in &graph.inputs {
            let port = &input.port;
            let set = self.settings.inputs.iter().rev().find(|(name, _)| *name == port.name);
            let value = set.map(|(_, value)| value.clone()).or_else(|| port.default.clone());
            let admitted = value.map(|value| port.admit(value)).transpose();
            let value = match admitted {
                Ok(Some(Literal::Text(text))) if port.ty == PortType::Int && text == "random" => {
                    Some(self.draw(Some(port)))
                }
                Ok(value) => value,
                Err(refusal) => {
                    let message = format!("input `{}`: {}", port.name, refusal.message);
                    self.refuse("value", Some(input.place), message, refusal.hint);
                    None
                }
            };
            if value.is_some() && value != port.default {
                let literal = value.as_ref().map(ToString::to_string).unwrap_or_default();
                self.edits.push(Edit::input(input, &literal));
            }
            self.values.push(value);
        }
    }

    fn refuse(
        &mut self,
        code: &'static str,
        place: Option<Place>,
        message: String,
        hint: Option<String>,
    ) {
        let diagnostic =
            Diagnostic::error(code, place.unwrap_or_default(), message).maybe_hint(hint);
        self.problems.push(Diagnostic { place, ..diagnostic });
    }

    /// A number within the port's range.
    fn draw(&self, port: Option<&Port>) -> Literal {
        let drawn = i128::from((self.settings.draw)());
        match port.and_then(|port| port.range) {
            Some(kino_port::Range::Int { min, max, step }) => {
                let places = max.saturating_sub(min) / step + 1;
                Literal::Int(min + drawn.rem_euclid(places.max(1)) * step)
            }
            _ => Literal::Int(drawn),
        }
    }

    /// The nodes wanted for themselves.
    fn targets(&mut self) -> Vec<NodeIndex> {
        let graph = self.graph;
        if let Some(until) = self.settings.until {
            let found = graph.order.iter().find(|index| *graph.nodes[**index].name == *until);
            if found.is_none() {
                let names: Vec<_> =
                    graph.order.iter().map(|index| &*graph.nodes[*index].name).collect();
                let message = format!("there is no node `{until}` to stop at");
                self.refuse("unknown-node", None, message, suggest(until, names));
            }
            return found.copied().into_iter().collect();
        }
        let mut targets: Vec<_> = graph
            .order
            .iter()
            .copied()
            .filter(|index| graph.nodes[*index].op.signature.traits.sink)
            .collect();
        for (_, feed) in &graph.outputs {
            feed.walk(&mut |source| {
                if let FeedSource::Edge(node, _) = source
                    && !targets.contains(node)
                {
                    targets.push(*node);
                }
            });
        }
        targets
    }

    /// The nodes before `targets`, and they themselves; `pruned`: without the inputs that a survey ruled out.
    fn reach(&self, targets: &[NodeIndex], pruned: bool) -> Vec<bool> {
        let nodes = &self.graph.nodes;
        let mut reached = vec![false; nodes.node_count()];
        let mut open = targets.to_vec();
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut reached[index.index()], true) {
                continue;
            }
            let chosen =
                self.known.get(&index).and_then(|known| known.survey.chosen).filter(|_| pruned);
            let Some(chosen) = chosen else {
                open.extend(nodes.neighbors_directed(index, Direction::Incoming));
                continue;
            };
            let node = &nodes[index];
            let kept = node.op.signature.inputs.iter().zip(&node.feeds);
            for (_, feed) in kept.filter(|(port, _)| !port.lazy || port.name == chosen) {
                feed.walk(&mut |source| {
                    if let FeedSource::Edge(from, _) = source {
                        open.push(*from);
                    }
                });
            }
        }
        reached
    }

    fn survey(&mut self, index: NodeIndex) -> Known {
        let graph = self.graph;
        let node = &graph.nodes[index];
        let signature = &node.op.signature;
        let mut blind = false;
        let mut inputs = Vec::with_capacity(node.feeds.len());
        let mut facts = Vec::with_capacity(node.feeds.len());
        for ((port, feed), name) in signature.inputs.iter().zip(&node.feeds).zip(&node.op.ports) {
            let before = self.problems.len();
            let (input, fact) = self.input(node, port, feed);
            // A lazy input may belong to a branch that is never taken.
            blind |= self.problems.len() > before || (!port.lazy && self.is_blind(feed));
            inputs.push(input);
            facts.push((Arc::clone(name), fact));
        }
        let mut known = Known {
            key: Key([0; 32]),
            facts: Vec::new(),
            inputs,
            survey: Survey::default(),
            objections: Vec::new(),
            blind,
        };
        if blind {
            return known;
        }
        match self.catalog.survey(&node.op.name, &Facts::new(facts)) {
            Ok(survey) => known.survey = survey,
            Err(objections) => {
                known.objections = objections;
                known.blind = true;
                return known;
            }
        }
        if let Some(chosen) = known.survey.chosen {
            for (port, input) in signature.inputs.iter().zip(&mut known.inputs) {
                if port.lazy && port.name != chosen {
                    *input = Input::Absent;
                }
            }
        }
        known.facts = std::mem::take(&mut known.survey.outputs);
        known.facts.resize(signature.outputs.len(), Fact::Unknown);
        known.key = self.key(node, &known);
        known
    }

    fn is_blind(&self, feed: &Feed) -> bool {
        let mut blind = false;
        feed.walk(&mut |source| {
            if let FeedSource::Edge(from, _) = source {
                blind |= self.known.get(from).is_none_or(|known| known.blind);
            }
        });
        blind
    }

    /// What feeds a port, and what is known of it. Steps are numbered by their node until the plan is cut.
    fn input(&mut self, node: &Node, port: &Port, feed: &Feed) -> (Input, Option<Fact>) {
        match &feed.source {
            FeedSource::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                let mut facts = Vec::with_capacity(items.len());
                for (name, feed) in items {
                    let Some((item, fact)) = self.item(node, port, feed) else { continue };
                    list.push((name.clone(), item));
                    facts.push((name.clone(), fact));
                }
                (Input::List(list), Some(Fact::List(facts)))
            }
            _ => match self.item(node, port, feed) {
                Some((Item::Literal(literal), fact)) => (Input::Literal(literal), Some(fact)),
                Some((Item::Edge(source), fact)) => (Input::Edge(source), Some(fact)),
                None => match &port.default {
                    Some(default) => {
                        (Input::Literal(default.clone()), Some(Fact::Literal(default.clone())))
                    }
                    None => (Input::Absent, None),
                },
            },
        }
    }

    fn item(&mut self, node: &Node, port: &Port, feed: &Feed) -> Option<(Item, Fact)> {
        let literal = match &feed.source {
            FeedSource::Absent | FeedSource::Broken | FeedSource::List(_) => return None,
            FeedSource::Edge(from, output) => {
                let source = Source { step: from.index() as u32, output: *output };
                let facts = self.known.get(from).map(|known| &known.facts);
                let fact = facts
                    .and_then(|facts| facts.get(*output as usize).cloned())
                    .unwrap_or_default();
                self.admit_fact(node, port, feed, &fact);
                return Some((Item::Edge(source), fact));
            }
            FeedSource::Literal(literal) => literal.clone(),
            FeedSource::Draw => self.drawn(port, feed.place),
            FeedSource::Template(pieces) => Literal::text(self.fill(pieces, feed.place)?),
            FeedSource::Input(index) => self.value(node, port, *index, feed.place)?,
        };
        Some((Item::Literal(literal.clone()), Fact::Literal(literal)))
    }

    /// A value computed while planning must fit the port as one that is written must.
    fn admit_fact(&mut self, node: &Node, port: &Port, feed: &Feed, fact: &Fact) {
        let Fact::Literal(literal) = fact else { return };
        if let Err(refusal) = port.admit(literal.clone()) {
            let message = format!("`{}` of `{}`: {}", port.name, node.name, refusal.message);
            self.refuse("value", Some(feed.place), message, refusal.hint);
        }
    }

    /// The number drawn for the `"random"` that stands at `place`.
    fn drawn(&mut self, port: &Port, place: Place) -> Literal {
        if let Some(drawn) = self.drawn.get(&place) {
            return drawn.clone();
        }
        let drawn = self.draw(Some(port));
        self.edits.push(Edit::replace(place, drawn.to_string()));
        self.drawn.insert(place, drawn.clone());
        drawn
    }

    /// The value of a graph's input, as `port` sees it.
    fn value(&mut self, node: &Node, port: &Port, index: usize, place: Place) -> Option<Literal> {
        let input = &self.graph.inputs[index];
        let name = &input.port.name;
        let Some(value) = self.values[index].clone() else {
            if !self.settings.inputs.iter().any(|(set, _)| *set == **name) {
                let message = format!("input `{name}` has no value");
                let hint = if input.port.ty.is_literal() {
                    format!("set it with `--set {name}=…`; it takes {}", input.port.expected())
                } else {
                    format!(
                        "a value of type {} comes from another graph that uses this one",
                        input.port.ty
                    )
                };
                self.refuse("unset-input", Some(input.place), message, Some(hint));
            }
            return None;
        };
        match port.admit(value) {
            Ok(value) => Some(value),
            Err(refusal) => {
                let message = format!(
                    "input `{name}`: `{}` of `{}` {}",
                    port.name, node.name, refusal.message
                );
                let diagnostic =
                    Diagnostic::error("value", input.place, message).maybe_hint(refusal.hint);
                self.problems.push(diagnostic.related(place, "used here"));
                None
            }
        }
    }

    fn fill(&mut self, pieces: &[Piece], place: Place) -> Option<String> {
        let mut path = String::new();
        for piece in pieces {
            let literal = match piece {
                Piece::Text(text) => {
                    path.push_str(text);
                    continue;
                }
                Piece::Stem => {
                    path.push_str(&sanitise(self.settings.stem));
                    continue;
                }
                Piece::Value(FeedSource::Input(index)) => self.values[*index].clone(),
                Piece::Value(FeedSource::Literal(literal)) => Some(literal.clone()),
                Piece::Value(FeedSource::Edge(from, output)) => {
                    let fact =
                        self.known.get(from).and_then(|known| known.facts.get(*output as usize));
                    fact.and_then(Fact::literal).cloned()
                }
                Piece::Value(_) => None,
            };
            match literal {
                Some(Literal::Text(text)) => path.push_str(&sanitise(&text)),
                Some(literal) => path.push_str(&sanitise(&literal.to_string())),
                None => {
                    let message =
                        "this path needs a value that is not known before running".to_owned();
                    self.refuse("template", Some(place), message, None);
                    return None;
                }
            }
        }
        Some(path)
    }

    /// The step's key: definition, environment, inputs by value or by their steps' keys, and what the survey added.
    fn key(&self, node: &Node, known: &Known) -> Key {
        let mut bytes = Vec::with_capacity(256);
        let text = |text: &str, bytes: &mut Vec<u8>| {
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        text(&node.op.name, &mut bytes);
        text(&node.op.signature.version, &mut bytes);
        let item = |item: &Item, bytes: &mut Vec<u8>| match item {
            Item::Literal(literal) => literal.encode(bytes),
            Item::Edge(source) => {
                bytes.push(b'e');
                let from = NodeIndex::new(source.step as usize);
                bytes.extend(self.known.get(&from).map_or([0; 32], |known| known.key.0));
                bytes.extend(source.output.to_le_bytes());
            }
        };
        for (port, input) in node.op.signature.inputs.iter().zip(&known.inputs) {
            text(&port.name, &mut bytes);
            match input {
                Input::Absent => bytes.push(b'0'),
                Input::Literal(literal) => literal.encode(&mut bytes),
                Input::Edge(source) => item(&Item::Edge(*source), &mut bytes),
                Input::List(items) => {
                    bytes.push(b'[');
                    bytes.extend((items.len() as u32).to_le_bytes());
                    for (name, one) in items {
                        text(name.as_deref().unwrap_or_default(), &mut bytes);
                        item(one, &mut bytes);
                    }
                }
            }
        }
        bytes.extend((known.survey.key.len() as u32).to_le_bytes());
        bytes.extend(&known.survey.key);
        bytes.extend(self.settings.environment);
        Key(*blake3::hash(&bytes).as_bytes())
    }

    /// Cuts the plan to what is needed, or says everything that stands against it.
    fn finish(mut self, targets: &[NodeIndex]) -> Result<Plan, Diagnostics> {
        let graph = self.graph;
        let needed = self.reach(targets, true);
        let order: Vec<_> =
            graph.order.iter().copied().filter(|index| needed[index.index()]).collect();
        for index in &order {
            if let Some(known) = self.known.get(index) {
                let node = &graph.nodes[*index];
                self.problems
                    .extend(known.objections.iter().map(|objection| said(node, objection)));
            }
        }
        self.same_path_twice(&order);
        if self.problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Diagnostics::new(self.problems, graph.files.clone()));
        }
        let mut numbers = vec![0u32; graph.nodes.node_count()];
        order.iter().enumerate().for_each(|(number, index)| numbers[index.index()] = number as u32);
        let is_target: std::collections::HashSet<_> = targets.iter().collect();
        let steps = order
            .iter()
            .filter_map(|index| self.step(*index, &numbers, is_target.contains(index)))
            .collect();
        let outputs =
            if self.settings.until.is_some() { Vec::new() } else { self.outputs(&numbers) };
        let names = graph.inputs.iter().map(|input| input.port.name.to_string());
        let inputs = names
            .zip(&self.values)
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect();
        let record = crate::record::record(graph, self.edits);
        Ok(Plan { steps, outputs, inputs, warnings: graph.warnings(), record })
    }

    fn step(&mut self, index: NodeIndex, numbers: &[u32], target: bool) -> Option<Step> {
        let node = &self.graph.nodes[index];
        let mut known = self.known.remove(&index)?;
        let number = |source: &mut Source| source.step = numbers[source.step as usize];
        for input in &mut known.inputs {
            match input {
                Input::Edge(source) => number(source),
                Input::List(items) => items.iter_mut().for_each(|(_, item)| {
                    if let Item::Edge(source) = item {
                        number(source);
                    }
                }),
                _ => {}
            }
        }
        let ports =
            self.ports.entry(Arc::as_ptr(&node.op)).or_insert_with(|| node.op.ports.clone().into());
        let extra = blake3::hash(&known.survey.key);
        Some(Step {
            name: Arc::clone(&node.name),
            op: Arc::clone(&node.op.name),
            version: Arc::from(&*node.op.signature.version),
            key: known.key,
            ports: Arc::clone(ports),
            inputs: known.inputs,
            facts: known.facts,
            reads: known.survey.reads,
            memory: known.survey.memory,
            traits: node.op.signature.traits,
            target,
            place: node.place,
            extra: u64::from_le_bytes(extra.as_bytes()[..8].try_into().unwrap_or_default()),
        })
    }

    fn outputs(&self, numbers: &[u32]) -> Vec<(String, Item)> {
        let item = |feed: &Feed| match &feed.source {
            FeedSource::Edge(node, output) => {
                Some(Item::Edge(Source { step: numbers[node.index()], output: *output }))
            }
            FeedSource::Input(index) => self.values[*index].clone().map(Item::Literal),
            FeedSource::Literal(literal) => Some(Item::Literal(literal.clone())),
            _ => None,
        };
        let outputs = self.graph.outputs.iter();
        outputs.filter_map(|(name, feed)| Some((name.clone(), item(feed)?))).collect()
    }

    /// Two sinks of one plan may not write one file.
    fn same_path_twice(&mut self, order: &[NodeIndex]) {
        let mut first: HashMap<String, NodeIndex> = HashMap::new();
        for index in order {
            let node = &self.graph.nodes[*index];
            let Some(known) = self.known.get(index).filter(|_| node.op.signature.traits.sink)
            else {
                continue;
            };
            for (port, input) in node.op.signature.inputs.iter().zip(&known.inputs) {
                let Input::Literal(Literal::Text(path)) = input else { continue };
                if port.ty != PortType::Path {
                    continue;
                }
                let Some(other) = first.insert(path.to_string(), *index) else { continue };
                let other = &self.graph.nodes[other];
                let message =
                    format!("`{}` and `{}` write the same file `{path}`", other.name, node.name);
                let diagnostic = Diagnostic::error("same-file", node.place, message);
                let hint = "give each a `path` of its own";
                self.problems.push(diagnostic.related(other.place, "the other").hint(hint));
            }
        }
    }
}

/// A node's objection, at the feed that it is about.
fn said(node: &Node, objection: &Objection) -> Diagnostic {
    let port = objection.port.as_deref();
    let fed = node.op.signature.inputs.iter().zip(&node.feeds);
    let feed = fed
        .filter(|(candidate, _)| Some(&*candidate.name) == port)
        .map(|(_, feed)| feed.place)
        .next();
    let subject = match port {
        Some(port) => format!("`{port}` of `{}`", node.name),
        None => format!("`{}`", node.name),
    };
    let message = format!("{subject}: {}", objection.message);
    Diagnostic::error("plan", feed.unwrap_or(node.place), message)
        .maybe_hint(objection.hint.clone())
}
