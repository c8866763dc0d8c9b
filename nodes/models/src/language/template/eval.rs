//! Evaluates a parsed template. Steps and bytes are counted: what a stranger's template does ends,
//! and takes no more memory than it may.

use std::collections::HashMap;
use std::rc::Rc;

use super::meter::{Evaluated, Given, Meter, real};
use super::methods;
use super::parse::{Args, Expr, Macro, Node};
use super::value::Value;

/// Statements and expressions in each other at most, macros included.
const DEEPEST: usize = 200;

/// A template on its way.
pub(super) struct Renderer<'t> {
    /// Names, the innermost last; the first are those of the template.
    scopes: Vec<HashMap<&'t str, Value>>,
    macros: Vec<&'t Macro<'t>>,
    out: String,
    meter: Meter,
    depth: usize,
}

/// How a sequence of statements ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t> Renderer<'t> {
    /// Renders nodes with these names.
    pub(super) fn render(
        nodes: &'t [Node<'t>],
        names: HashMap<&'t str, Value>,
    ) -> Evaluated<String> {
        let mut own = Renderer {
            scopes: vec![names],
            macros: Vec::new(),
            out: String::new(),
            meter: Meter::default(),
            depth: 0,
        };
        own.nodes(nodes)?;
        Ok(own.out)
    }

    fn deeper(&mut self) -> Evaluated<()> {
        self.depth += 1;
        match self.depth > DEEPEST {
            true => Err(format!("it goes more than {DEEPEST} deep")),
            false => self.meter.step(),
        }
    }

    fn nodes(&mut self, nodes: &'t [Node<'t>]) -> Evaluated<Flow> {
        self.deeper()?;
        for node in nodes {
            self.meter.step()?;
            let flow = self.node(node)?;
            if flow != Flow::On {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::On)
    }

    fn node(&mut self, node: &'t Node<'t>) -> Evaluated<Flow> {
        match node {
            Node::Text(text) => {
                self.meter.charge(text.len())?;
                self.out.push_str(text);
            }
            Node::Output(expr) => {
                let value = self.expr(expr)?;
                let text = self.meter.shown(&value)?;
                self.meter.charge(text.len())?;
                self.out.push_str(&text);
            }
            Node::If(branches) => {
                for (condition, body) in branches {
                    let holds = match condition {
                        Some(condition) => self.expr(condition)?.is_true(),
                        None => true,
                    };
                    if holds {
                        return self.nodes(body);
                    }
                }
            }
            Node::For { targets, items, only, body, otherwise } => {
                return self.each(targets, items, only.as_ref(), (body, otherwise));
            }
            Node::Set(name, attribute, expr) => {
                let value = self.expr(expr)?;
                self.set(name, *attribute, value)?;
            }
            Node::SetBlock(name, body) => {
                let value = self.aside(body)?;
                self.set(name, None, value)?;
            }
            Node::Macro(of) => {
                let number = self.macros.len();
                self.meter.charge(size_of::<usize>())?;
                self.macros.push(of);
                self.set(of.name, None, Value::Macro(number))?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// What nodes write, as a text.
    fn aside(&mut self, nodes: &'t [Node<'t>]) -> Evaluated<Value> {
        let before = std::mem::take(&mut self.out);
        self.nodes(nodes)?;
        let text = std::mem::replace(&mut self.out, before);
        Ok(Value::Text(text.into()))
    }

    fn set(&mut self, name: &'t str, attribute: Option<&'t str>, value: Value) -> Evaluated<()> {
        let Some(attribute) = attribute else {
            if let Some(scope) = self.scopes.last_mut() {
                scope.insert(name, value);
            }
            return Ok(());
        };
        if matches!(value, Value::Namespace(_)) {
            return Err("a namespace lies in another value".to_owned());
        }
        let Value::Namespace(entries) = self.lookup(name) else {
            return Err(format!("`{name}` is no namespace"));
        };
        let mut entries = entries.borrow_mut();
        match entries.iter_mut().find(|(own, _)| **own == *attribute) {
            Some(entry) => entry.1 = value,
            None => {
                self.meter.charge(attribute.len() + size_of::<Value>())?;
                entries.push((attribute.into(), value));
            }
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Value {
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        found.cloned().unwrap_or(match name {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            "none" | "None" => Value::None,
            _ => Value::Undefined,
        })
    }

    fn each(
        &mut self,
        targets: &'t [&'t str],
        items: &'t Expr<'t>,
        only: Option<&'t Expr<'t>>,
        (body, otherwise): (&'t [Node<'t>], &'t [Node<'t>]),
    ) -> Evaluated<Flow> {
        let items = self.expr(items)?;
        let mut items = self.meter.items(&items)?;
        if let Some(only) = only {
            let mut kept = Vec::new();
            for item in items {
                self.scopes.push(HashMap::new());
                self.bind(targets, &item)?;
                let holds = self.expr(only)?.is_true();
                self.scopes.pop();
                if holds {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.nodes(otherwise);
        }
        let count = items.len();
        for (at, item) in items.iter().enumerate() {
            let whole = |number: usize| Value::Int(number as i64);
            let entries = [
                ("index", whole(at + 1)),
                ("index0", whole(at)),
                ("revindex", whole(count - at)),
                ("revindex0", whole(count - at - 1)),
                ("first", Value::Bool(at == 0)),
                ("last", Value::Bool(at + 1 == count)),
                ("length", whole(count)),
                ("previtem", at.checked_sub(1).map_or(Value::Undefined, |at| items[at].clone())),
                ("nextitem", items.get(at + 1).cloned().unwrap_or(Value::Undefined)),
            ];
            self.meter.charge(size_of_val(&entries))?;
            let entries = entries.map(|(name, value)| (Rc::from(name), value));
            let about = Value::map(entries.into())?;
            self.scopes.push(HashMap::from([("loop", about)]));
            self.bind(targets, item)?;
            let flow = self.nodes(body)?;
            self.scopes.pop();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// Names an item, or the items that it has.
    fn bind(&mut self, targets: &'t [&'t str], item: &Value) -> Evaluated<()> {
        if let [target] = targets {
            return self.set(target, None, item.clone());
        }
        let items = self.meter.items(item)?;
        if items.len() != targets.len() {
            return Err(format!("{} names for {} values", targets.len(), items.len()));
        }
        targets.iter().zip(items).try_for_each(|(target, item)| self.set(target, None, item))
    }

    fn given(&mut self, args: &'t Args<'t>) -> Evaluated<Given> {
        let by_place =
            args.by_place.iter().map(|expr| self.expr(expr)).collect::<Result<_, _>>()?;
        let by_name =
            args.by_name.iter().map(|(name, expr)| Ok((name.to_string(), self.expr(expr)?)));
        let by_name = by_name.collect::<Evaluated<_>>()?;
        Ok(Given { by_place, by_name })
    }

    fn expr(&mut self, expr: &'t Expr<'t>) -> Evaluated<Value> {
        self.deeper()?;
        let value = self.value_of(expr)?;
        self.depth -= 1;
        Ok(value)
    }

    fn value_of(&mut self, expr: &'t Expr<'t>) -> Evaluated<Value> {
        Ok(match expr {
            Expr::Text(text) => return self.meter.text(text),
            Expr::Int(number) => Value::Int(*number),
            Expr::Real(number) => Value::Real(*number),
            Expr::Var(name) => self.lookup(name),
            Expr::List(items) => {
                let items = items.iter().map(|item| self.expr(item)).collect::<Result<_, _>>()?;
                return self.meter.list(items);
            }
            Expr::Map(entries) => {
                let mut own = Vec::new();
                for (name, value) in entries {
                    let name = self.expr(name)?;
                    let name = self.meter.shown(&name)?;
                    self.meter.charge(name.len() + size_of::<Value>())?;
                    own.push((Rc::from(name.as_str()), self.expr(value)?));
                }
                return Value::map(own);
            }
            Expr::Attr(of, name) => self.expr(of)?.get(name),
            Expr::Index(of, at) => {
                let (of, at) = (self.expr(of)?, self.expr(at)?);
                return self.index(&of, &at);
            }
            Expr::Slice(of, parts) => {
                let of = self.expr(of)?;
                let mut bounds = [None; 3];
                for (bound, part) in bounds.iter_mut().zip(parts) {
                    let Some(part) = part else { continue };
                    *bound = match self.expr(part)? {
                        Value::Int(number) => Some(number),
                        Value::None => None,
                        other => return Err(format!("a slice begins at {}", other.kind())),
                    };
                }
                return self.slice(&of, bounds);
            }
            Expr::Call(of, args) => return self.call(of, args),
            Expr::Filter(of, name, args) => {
                let (of, given) = (self.expr(of)?, self.given(args)?);
                return methods::filter(&mut self.meter, name, &of, &given);
            }
            Expr::Test(of, name, args) => {
                let (of, given) = (self.expr(of)?, self.given(args)?);
                Value::Bool(methods::test(&mut self.meter, name, &of, &given)?)
            }
            Expr::Not(of) => Value::Bool(!self.expr(of)?.is_true()),
            Expr::Negative(of) => match self.expr(of)? {
                Value::Int(number) => Value::Int(number.checked_neg().ok_or("a number overflows")?),
                Value::Real(number) => Value::Real(-number),
                other => return Err(format!("`-` before {}", other.kind())),
            },
            Expr::And(left, right) => {
                let left = self.expr(left)?;
                if left.is_true() { self.expr(right)? } else { left }
            }
            Expr::Or(left, right) => {
                let left = self.expr(left)?;
                if left.is_true() { left } else { self.expr(right)? }
            }
            Expr::If(condition, then, otherwise) => {
                match (self.expr(condition)?.is_true(), otherwise) {
                    (true, _) => self.expr(then)?,
                    (false, Some(otherwise)) => self.expr(otherwise)?,
                    (false, None) => Value::Undefined,
                }
            }
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                return self.binary(op, &left, &right);
            }
        })
    }

    fn index(&mut self, of: &Value, at: &Value) -> Evaluated<Value> {
        let placed = |length: usize, at: i64| {
            let at = if at < 0 { at.checked_add(length as i64)? } else { at };
            usize::try_from(at).ok().filter(|at| *at < length)
        };
        Ok(match (of, at) {
            (Value::List(items, _), Value::Int(at)) => {
                placed(items.len(), *at).map_or(Value::Undefined, |at| items[at].clone())
            }
            (Value::Text(text), Value::Int(at)) => {
                self.meter.charge(text.len())?;
                let length = text.chars().count();
                let char = placed(length, *at).and_then(|at| text.chars().nth(at));
                char.map_or(Value::Undefined, |char| Value::text(char.encode_utf8(&mut [0; 4])))
            }
            (_, Value::Text(name)) => of.get(name),
            (Value::Map(..), other) => {
                let name = self.meter.shown(other)?;
                of.get(&name)
            }
            _ => Value::Undefined,
        })
    }

    /// As Python's slices.
    fn slice(&mut self, of: &Value, [start, end, step]: [Option<i64>; 3]) -> Evaluated<Value> {
        let step = step.unwrap_or(1);
        let step_by = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
        if step_by == 0 {
            return Err("a slice has the step 0".to_owned());
        }
        let items = self.meter.items(of)?;
        let length = items.len() as i64;
        let placed = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
        let taken: Vec<Value> = if step > 0 {
            let start = placed(start.unwrap_or(0)).clamp(0, length) as usize;
            let end = placed(end.unwrap_or(length)).clamp(0, length) as usize;
            items
                .get(start..end.max(start))
                .unwrap_or_default()
                .iter()
                .step_by(step_by)
                .cloned()
                .collect()
        } else {
            let start = start.map_or(length - 1, placed).clamp(-1, length - 1);
            let end = end.map_or(-1, placed).clamp(-1, length - 1);
            let range = (end + 1).max(0) as usize..(start + 1).max(0) as usize;
            let range = items.get(range).unwrap_or_default();
            range.iter().rev().step_by(step_by).cloned().collect()
        };
        match of {
            Value::Text(_) => {
                let chars: String = taken
                    .iter()
                    .filter_map(|char| match char {
                        Value::Text(text) => Some(&**text),
                        _ => None,
                    })
                    .collect();
                self.meter.text(&chars)
            }
            _ => self.meter.list(taken),
        }
    }

    fn call(&mut self, of: &'t Expr<'t>, args: &'t Args<'t>) -> Evaluated<Value> {
        if let Expr::Attr(object, method) = of {
            let object = self.expr(object)?;
            let given = self.given(args)?;
            return methods::call(&mut self.meter, &object, method, &given);
        }
        let Expr::Var(name) = of else { return Err("what is called has no name".to_owned()) };
        let given = self.given(args)?;
        match self.lookup(name) {
            Value::Macro(number) => self.expand(number, given),
            Value::Undefined => methods::function(&mut self.meter, name, given),
            other => Err(format!("`{name}` is {}, which is not called", other.kind())),
        }
    }

    fn expand(&mut self, number: usize, given: Given) -> Evaluated<Value> {
        let of = *self.macros.get(number).ok_or("an unknown macro")?;
        let mut names = HashMap::new();
        for (at, (name, default)) in of.parameters.iter().enumerate() {
            let value = match (given.get(at, name), default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => self.expr(default)?,
                (None, None) => Value::Undefined,
            };
            names.insert(*name, value);
        }
        // A macro sees the names of the template, and none of where it is called.
        let others = self.scopes.split_off(1);
        self.scopes.push(names);
        let text = self.aside(&of.body);
        self.scopes.truncate(1);
        self.scopes.extend(others);
        text
    }

    fn binary(&mut self, op: &str, left: &Value, right: &Value) -> Evaluated<Value> {
        let numbers = |left: &Value, right: &Value| Some((real(left)?, real(right)?));
        Ok(match (op, left, right) {
            ("==", ..) => Value::Bool(self.meter.equal(left, right)?),
            ("!=", ..) => Value::Bool(!self.meter.equal(left, right)?),
            ("in", ..) => Value::Bool(self.meter.contains(right, left)?),
            ("not in", ..) => Value::Bool(!self.meter.contains(right, left)?),
            ("~", ..) => {
                let (left, right) = (self.meter.shown(left)?, self.meter.shown(right)?);
                self.meter.charge(left.len() + right.len())?;
                Value::Text((left + &right).into())
            }
            ("+", Value::Text(left), Value::Text(right)) => {
                self.meter.charge(left.len() + right.len())?;
                Value::Text([&**left, &**right].concat().into())
            }
            ("+", Value::List(left, _), Value::List(right, _)) => {
                let items = left.iter().chain(right.iter()).cloned().collect();
                return self.meter.list(items);
            }
            ("*", Value::Text(text), Value::Int(count)) => {
                let count = usize::try_from(*count).unwrap_or(0);
                self.meter.charge(text.len().saturating_mul(count))?;
                Value::Text(text.repeat(count).into())
            }
            ("<" | "<=" | ">" | ">=", ..) => {
                let order = match (left, right) {
                    (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
                    _ => numbers(left, right).and_then(|(left, right)| left.partial_cmp(&right)),
                };
                let order = order
                    .ok_or_else(|| format!("{} and {} have no order", left.kind(), right.kind()))?;
                Value::Bool(match op {
                    "<" => order.is_lt(),
                    "<=" => order.is_le(),
                    ">" => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            (_, Value::Int(left), Value::Int(right)) if op != "/" => {
                let result = match op {
                    "+" => left.checked_add(*right),
                    "-" => left.checked_sub(*right),
                    "*" => left.checked_mul(*right),
                    // Python rounds down, and the remainder has the sign of the divisor.
                    "//" => left.checked_div_euclid(*right).map(|quotient| {
                        quotient - i64::from(*right < 0 && left.rem_euclid(*right) != 0)
                    }),
                    _ => left
                        .checked_rem_euclid(*right)
                        .map(|rest| if *right < 0 && rest != 0 { rest + right } else { rest }),
                };
                Value::Int(result.ok_or("a number overflows, or is divided by 0")?)
            }
            _ => match numbers(left, right) {
                Some((left, right)) => Value::Real(match op {
                    "+" => left + right,
                    "-" => left - right,
                    "*" => left * right,
                    "//" => (left / right).floor(),
                    "%" => left - right * (left / right).floor(),
                    _ => left / right,
                }),
                None => {
                    return Err(format!("`{op}` between {} and {}", left.kind(), right.kind()));
                }
            },
        })
    }
}
