//! Filters, tests, functions of Jinja, and methods of Python that chat templates use.

use std::cell::RefCell;
use std::rc::Rc;

use super::meter::{Evaluated, Given, Meter, Notation};
use super::value::Value;

/// Numbers of a `range` at most.
const MOST_NUMBERS: i64 = 100_000;

/// A function by its name.
pub(super) fn function(cx: &mut Meter, name: &str, given: Given) -> Evaluated<Value> {
    let entries = |given: Given| -> Vec<(Rc<str>, Value)> {
        given.by_name.into_iter().map(|(name, value)| (Rc::from(name), value)).collect()
    };
    match name {
        "raise_exception" => {
            Err(format!("it refuses: {}", given.text(0, "message")?.unwrap_or_default()))
        }
        "namespace" => {
            let entries = entries(given);
            // What lies in it may lie in a map; no other namespace does.
            Value::map(entries.clone())?;
            Ok(Value::Namespace(Rc::new(RefCell::new(entries))))
        }
        "dict" => Value::map(entries(given)),
        "range" => {
            let number = |at: usize| match given.by_place.get(at) {
                None => Ok(None),
                Some(Value::Int(number)) => Ok(Some(*number)),
                Some(other) => Err(format!("a range of {}", other.kind())),
            };
            let (start, end) = match number(1)? {
                Some(end) => (number(0)?.unwrap_or(0), end),
                None => (0, number(0)?.unwrap_or(0)),
            };
            let step = number(2)?.unwrap_or(1);
            let count = match step {
                0 => return Err("a range has the step 0".to_owned()),
                step if step > 0 => end.saturating_sub(start).saturating_add(step - 1) / step,
                step => start.saturating_sub(end).saturating_sub(step + 1) / step.saturating_neg(),
            };
            if count > MOST_NUMBERS {
                return Err(format!("a range has more than {MOST_NUMBERS} numbers"));
            }
            let numbers = (0..count.max(0)).map(|at| Value::Int(start.wrapping_add(at * step)));
            cx.list(numbers.collect())
        }
        name => Err(format!("there is no function `{name}`")),
    }
}

/// A method of a value.
pub(super) fn call(cx: &mut Meter, of: &Value, method: &str, given: &Given) -> Evaluated<Value> {
    match (of, method) {
        (Value::Text(text), "strip" | "lstrip" | "rstrip") => {
            let chars = given.text(0, "chars")?;
            let goes = |char: char| match chars {
                Some(chars) => chars.contains(char),
                None => char.is_whitespace(),
            };
            let mut stripped = &**text;
            if method != "rstrip" {
                stripped = stripped.trim_start_matches(goes);
            }
            if method != "lstrip" {
                stripped = stripped.trim_end_matches(goes);
            }
            cx.text(stripped)
        }
        (Value::Text(text), "startswith" | "endswith") => {
            let is_part = |part: &Value| match (part, method) {
                (Value::Text(part), "startswith") => Ok(text.starts_with(&**part)),
                (Value::Text(part), _) => Ok(text.ends_with(&**part)),
                (other, _) => Err(format!("`{method}` of {}", other.kind())),
            };
            match given.get(0, "prefix") {
                Some(Value::List(parts, _)) => {
                    let found: Vec<bool> = parts.iter().map(is_part).collect::<Evaluated<_>>()?;
                    Ok(Value::Bool(found.contains(&true)))
                }
                Some(part) => is_part(part).map(Value::Bool),
                None => Err(format!("`{method}` is given nothing")),
            }
        }
        (Value::Text(text), "split") => {
            let limit = match given.get(1, "maxsplit") {
                Some(Value::Int(limit)) => usize::try_from(*limit).ok(),
                _ => None,
            };
            let limit = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
            // Every part takes the place of a value.
            cx.charge(text.len().saturating_mul(size_of::<Value>()))?;
            let parts: Vec<Value> = match given.text(0, "sep")? {
                Some("") => return Err("a text is split at an empty text".to_owned()),
                Some(at) => text.splitn(limit, at).map(Value::text).collect(),
                None => text.split_whitespace().map(Value::text).collect(),
            };
            cx.list(parts)
        }
        (Value::Text(text), "replace") => {
            replaced(cx, text, given.text(0, "old")?, given.text(1, "new")?)
        }
        (Value::Text(text), "upper") => cx.text(&text.to_uppercase()),
        (Value::Text(text), "lower") => cx.text(&text.to_lowercase()),
        (Value::Text(text), "title") => cx.text(&titled(text)),
        (Value::Text(text), "capitalize") => cx.text(&capitalized(text)),
        (Value::Text(text), "join") => {
            let parts = given.get(0, "iterable").cloned().unwrap_or(Value::Undefined);
            joined(cx, &parts, text)
        }
        (Value::Map(..), "get") => {
            let found = of.get(given.text(0, "key")?.unwrap_or_default());
            Ok(match found {
                Value::Undefined => given.get(1, "default").cloned().unwrap_or(Value::None),
                found => found,
            })
        }
        (Value::Map(..), "keys") => {
            let names = cx.items(of)?;
            cx.list(names)
        }
        (Value::Map(entries, _), "values") => {
            let values = entries.iter().map(|(_, value)| value.clone()).collect();
            cx.list(values)
        }
        (Value::Map(..), "items") => pairs(cx, of),
        (of, method) => Err(format!("{} has no method `{method}`", of.kind())),
    }
}

/// A filter by its name.
pub(super) fn filter(cx: &mut Meter, name: &str, of: &Value, given: &Given) -> Evaluated<Value> {
    match name {
        "trim" | "upper" | "lower" | "title" | "capitalize" => {
            let text = Value::Text(cx.shown(of)?.into());
            call(cx, &text, if name == "trim" { "strip" } else { name }, given)
        }
        "replace" => {
            let text = cx.shown(of)?;
            replaced(cx, &text, given.text(0, "old")?, given.text(1, "new")?)
        }
        "string" => {
            let text = cx.shown(of)?;
            cx.text(&text)
        }
        // Nothing is escaped, as nothing is HTML.
        "safe" => Ok(of.clone()),
        "length" | "count" => match of {
            Value::Text(text) => Ok(Value::Int(text.chars().count() as i64)),
            Value::List(items, _) => Ok(Value::Int(items.len() as i64)),
            Value::Map(entries, _) => Ok(Value::Int(entries.len() as i64)),
            Value::Undefined => Ok(Value::Int(0)),
            other => Err(format!("the length of {}", other.kind())),
        },
        "default" | "d" => {
            let otherwise = || given.get(0, "default_value").cloned().unwrap_or(Value::text(""));
            let by_truth = given.get(1, "boolean").is_some_and(Value::is_true);
            let is_missing = matches!(of, Value::Undefined) || by_truth && !of.is_true();
            Ok(if is_missing { otherwise() } else { of.clone() })
        }
        "join" => {
            let separator = given.text(0, "d")?.unwrap_or_default();
            match given.get(1, "attribute") {
                Some(Value::Text(attribute)) => {
                    let items = cx.items(of)?;
                    let parts = items.iter().map(|item| item.get(attribute)).collect();
                    let parts = cx.list(parts)?;
                    joined(cx, &parts, separator)
                }
                _ => joined(cx, of, separator),
            }
        }
        "first" => Ok(cx.items(of)?.into_iter().next().unwrap_or(Value::Undefined)),
        "last" => Ok(cx.items(of)?.into_iter().next_back().unwrap_or(Value::Undefined)),
        "list" => {
            let items = cx.items(of)?;
            cx.list(items)
        }
        "reverse" => {
            let mut items = cx.items(of)?;
            items.reverse();
            cx.list(items)
        }
        "items" => pairs(cx, of),
        "int" => Ok(Value::Int(match of {
            Value::Int(number) => *number,
            Value::Real(number) => *number as i64,
            Value::Bool(bool) => i64::from(*bool),
            Value::Text(text) => text.trim().parse().unwrap_or(0),
            _ => 0,
        })),
        "tojson" => {
            let mut text = String::new();
            cx.write(of, Notation::Json, &mut text)?;
            cx.text(&text)
        }
        "map" => {
            let items = cx.items(of)?;
            let mut mapped = Vec::new();
            for item in &items {
                mapped.push(
                    match (given.text(usize::MAX, "attribute")?, given.text(0, "filter")?) {
                        (Some(attribute), _) => item.get(attribute),
                        (None, Some(name)) => {
                            let nothing = Given { by_place: Vec::new(), by_name: Vec::new() };
                            filter(cx, name, item, &nothing)?
                        }
                        (None, None) => return Err("`map` is given nothing".to_owned()),
                    },
                );
            }
            cx.list(mapped)
        }
        "selectattr" | "rejectattr" => {
            let attribute = given.text(0, "attribute")?.unwrap_or_default();
            let items = cx.items(of)?;
            let mut kept = Vec::new();
            for item in items {
                let value = item.get(attribute);
                let holds = match given.text(1, "test")? {
                    None => value.is_true(),
                    Some(name) => {
                        let by_place = given.by_place.iter().skip(2).cloned().collect();
                        test(cx, name, &value, &Given { by_place, by_name: Vec::new() })?
                    }
                };
                if holds == (name == "selectattr") {
                    kept.push(item);
                }
            }
            cx.list(kept)
        }
        name => Err(format!("the filter `{name}` is not read")),
    }
}

/// A test by its name.
pub(super) fn test(cx: &mut Meter, name: &str, of: &Value, given: &Given) -> Evaluated<bool> {
    let other = || given.get(0, "other").cloned().unwrap_or(Value::Undefined);
    Ok(match name {
        "defined" => !matches!(of, Value::Undefined),
        "undefined" => matches!(of, Value::Undefined),
        "none" => matches!(of, Value::None),
        "string" => matches!(of, Value::Text(_)),
        "mapping" => matches!(of, Value::Map(..)),
        "iterable" | "sequence" => matches!(of, Value::Text(_) | Value::List(..) | Value::Map(..)),
        "boolean" => matches!(of, Value::Bool(_)),
        "true" => matches!(of, Value::Bool(true)),
        "false" => matches!(of, Value::Bool(false)),
        "integer" => matches!(of, Value::Int(_)),
        "float" => matches!(of, Value::Real(_)),
        "number" => matches!(of, Value::Int(_) | Value::Real(_) | Value::Bool(_)),
        "odd" => matches!(of, Value::Int(number) if number % 2 != 0),
        "even" => matches!(of, Value::Int(number) if number % 2 == 0),
        "equalto" | "eq" | "sameas" => cx.equal(of, &other())?,
        "ne" => !cx.equal(of, &other())?,
        "in" => cx.contains(&other(), of)?,
        name => return Err(format!("the test `{name}` is not read")),
    })
}

/// Pairs of names and values.
fn pairs(cx: &mut Meter, of: &Value) -> Evaluated<Value> {
    let Value::Map(entries, _) = of else {
        return Err(format!("the items of {}", of.kind()));
    };
    let mut pairs = Vec::new();
    for (name, value) in entries.iter() {
        pairs.push(cx.list(vec![Value::Text(Rc::clone(name)), value.clone()])?);
    }
    cx.list(pairs)
}

fn replaced(cx: &mut Meter, text: &str, old: Option<&str>, new: Option<&str>) -> Evaluated<Value> {
    let (Some(old), Some(new)) = (old, new) else {
        return Err("`replace` needs two texts".to_owned());
    };
    let found = text.matches(old).count();
    cx.charge(found.saturating_mul(new.len()).saturating_add(text.len()))?;
    cx.text(&text.replace(old, new))
}

fn joined(cx: &mut Meter, parts: &Value, separator: &str) -> Evaluated<Value> {
    let mut text = String::new();
    for (at, part) in cx.items(parts)?.iter().enumerate() {
        let part = cx.shown(part)?;
        cx.charge(separator.len() + part.len())?;
        text += if at > 0 { separator } else { "" };
        text += &part;
    }
    cx.text(&text)
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

fn titled(text: &str) -> String {
    let mut titled = String::new();
    let mut is_inside = false;
    for char in text.chars() {
        match is_inside {
            true => titled.extend(char.to_lowercase()),
            false => titled.extend(char.to_uppercase()),
        }
        is_inside = char.is_alphabetic();
    }
    titled
}
