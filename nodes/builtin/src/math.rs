//! `math`: arithmetic on two numbers, or an expression over named ones, computed while planning
//! where they are known.

mod expression;
mod number;

use std::borrow::Cow;
use std::collections::HashSet;

use kino_node::{Cx, Error, Inputs, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, Literal, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge,
    optional, optional_list, ports, text,
};

use crate::infer::{InferResult, refuse};
use number::Number;

/// Arithmetic on two numbers.
pub(crate) static MATH: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("math"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            optional("a", PortType::Any).numbers().about(
                "The first number: an Int or a Real. It is needed unless there is an expression."
            ),
            zero("b").about("The second number."),
            text("op", "add").choices(&OPERATIONS).about(
                "What to do: a + b, a − b, a · b, a / b, the lesser, the greater, aᵇ, the \
                     remainder of a / b; or with `a` alone: the whole number below, above, nearest."
            ),
            text("expr", "").about(
                "An expression to compute instead, such as \"4*floor(seconds*fps/4)+1\": numbers, \
                     names of `values`, a and b; + - * / // % ^ and brackets; floor, ceil, round, \
                     abs, sqrt, min, max, pow, mod."
            ),
            optional_list("values", PortType::Any)
                .numbers()
                .named()
                .about("Numbers for the expression, by name: {\"fps\": \"inputs.fps\"}."),
        ],
        outputs: ports![
            edge("value", PortType::Any)
                .int_where("op", &ROUNDING)
                .about("The result; an Int if both numbers are, or if it is rounded.")
        ],
        traits: NodeTraits::PORTABLE,
    },
    infer,
    run,
};

const ABOUT: &str = "Computes with two numbers, or an expression over named ones. Two whole numbers \
give a whole number: `div` then rounds down, and `mod` has the sign of `b`. If either is a Real, so \
is the result, unless it is rounded; half goes away from zero. In an expression `/` gives a Real and \
`//` rounds down. What is known before the run is computed while planning, so that a result can feed \
`frames` or `width` and is checked against their ranges at once.\n\n\
Example:\n    // 4k+1 frames of some seconds\n    \"count\": (op: \"math\", in: {\"values\": \
{\"seconds\": \"inputs.seconds\", \"fps\": \"inputs.fps\"}},\n        with: {\"expr\": \
\"4*floor(seconds*fps/4)+1\"}),";

/// The operations that give an Int of a Real.
const ROUNDING: [&str; 3] = ["floor", "ceil", "round"];

const OPERATIONS: [Cow<'static, str>; 11] = [
    Cow::Borrowed("add"),
    Cow::Borrowed("sub"),
    Cow::Borrowed("mul"),
    Cow::Borrowed("div"),
    Cow::Borrowed("min"),
    Cow::Borrowed("max"),
    Cow::Borrowed("pow"),
    Cow::Borrowed("mod"),
    Cow::Borrowed("floor"),
    Cow::Borrowed("ceil"),
    Cow::Borrowed("round"),
];

/// A number of either kind, 0 where nothing feeds it.
const fn zero(name: &'static str) -> Port {
    let mut port = edge(name, PortType::Any).numbers();
    std::mem::forget(port.default.replace(Literal::Int(0)));
    port
}

/// The number at a port or in a list, as a literal while planning.
type Named = (String, Number);

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut errors = Vec::new();
    let mut number = |port: &str, fact: &Fact| match Number::of(fact.literal()?) {
        Ok(number) => Some(number),
        Err(message) => {
            errors.push(PlanError::at(port, message));
            None
        }
    };
    let a = facts.get("a").map(|fact| number("a", fact));
    let b = facts.get("b").and_then(|fact| number("b", fact));
    let named: Vec<(String, Option<Number>)> = match facts.get("values") {
        Some(Fact::List(items)) => (items.iter())
            .map(|(name, fact)| {
                (name.as_deref().unwrap_or_default().to_owned(), number("values", fact))
            })
            .collect(),
        Some(one) => vec![(String::new(), number("values", one))],
        None => Vec::new(),
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let Some(expression) = facts.text("expr") else { return Ok(StepInfo::default()) };
    let mut warnings = Vec::new();
    let result = if expression.is_empty() {
        let Some(a) = a else { return Err(vec![nothing_feeds()]) };
        match (a, b, facts.text("op")) {
            (Some(a), Some(b), Some(op)) => number::compute(a, b, op),
            (None, Some(b), Some(op)) => {
                number::check_divisor(b, op).map_err(|error| vec![error])?;
                return Ok(StepInfo::default());
            }
            _ => return Ok(StepInfo::default()),
        }
    } else {
        let of_port = !named.iter().any(|(name, _)| name == "b");
        let all = with_ports(named, a, Some(b)).map_err(|error| vec![error])?;
        if of_port && facts.get("b").and_then(Fact::literal) == Some(&Literal::Int(0)) {
            warnings.extend(reads_zero(expression, &all));
        }
        let known: Option<Vec<Named>> =
            all.iter().map(|(name, value)| Some((name.clone(), (*value)?))).collect();
        match known {
            Some(values) => in_expression(expression, &values),
            None => {
                let names: Vec<&str> = all.iter().map(|(name, _)| &**name).collect();
                let checked = expression::check(expression, &names);
                checked.map_err(|message| vec![PlanError::at("expr", message)])?;
                return Ok(StepInfo { warnings, ..StepInfo::default() });
            }
        }
    };
    let literal = match result.map_err(|error| vec![error])? {
        Number::Int(value) => Literal::Int(value),
        Number::Real(value) => Literal::Real(value),
    };
    Ok(StepInfo { outputs: vec![Fact::Literal(literal)], warnings, ..StepInfo::default() })
}

/// A warning where an expression reads `b` that is 0, as it is where nothing feeds it.
fn reads_zero<T>(expression: &str, all: &[(String, T)]) -> Option<PlanError> {
    let names: Vec<&str> = all.iter().map(|(name, _)| &**name).collect();
    let others: Vec<&str> = names.iter().copied().filter(|name| *name != "b").collect();
    let reads = expression::check(expression, &names).is_ok()
        && expression::check(expression, &others).is_err();
    let warning = || PlanError::at("expr", "`b` is 0, as it is where nothing feeds it");
    reads.then(|| warning().hint("feed `b`, or write 0"))
}

fn nothing_feeds() -> PlanError {
    PlanError::at("a", "nothing feeds it, and there is no expression")
        .hint("feed `a`, or write an expression in `expr`")
}

/// What an expression reads: `values` by their names, and `a` and `b` where none of them is called
/// so.
fn with_ports<T>(
    mut values: Vec<(String, T)>,
    a: Option<T>,
    b: Option<T>,
) -> Result<Vec<(String, T)>, PlanError> {
    let mut seen = HashSet::new();
    for (name, _) in &values {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            let message = match &**name {
                "" => "a number of an expression needs a name".to_owned(),
                name => format!("`{name}` is no name: letters, digits and _, a letter first"),
            };
            let hint = "write {\"fps\": \"inputs.fps\"}";
            return Err(PlanError::at("values", message).hint(hint));
        }
        if !seen.insert(name.clone()) {
            return Err(PlanError::at("values", format!("`{name}` is there twice")));
        }
    }
    let of_ports = [("a", a), ("b", b)].into_iter().filter(|(name, _)| !seen.contains(*name));
    values.extend(of_ports.filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(values)
}

fn in_expression(expression: &str, values: &[Named]) -> Result<Number, PlanError> {
    expression::compute(expression, values).map_err(|message| PlanError::at("expr", message))
}

fn run(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let number = |port: &str, value: &Value| match value {
        Value::Int(value) => Ok(Number::Int(*value)),
        Value::Real(value) => Ok(Number::Real(*value)),
        other => Err(Error::input(port, format!("expected a number, found {}", other.type_name()))),
    };
    let a = inputs.get("a").map(|value| number("a", value)).transpose()?;
    let b = inputs.get("b").map(|value| number("b", value)).transpose()?;
    let (expression, op) = (inputs.text("expr")?, inputs.text("op")?);
    let result = if expression.is_empty() {
        let a = a.ok_or_else(|| Error::input("a", "nothing feeds it"))?;
        number::compute(a, b.unwrap_or(Number::Int(0)), op)
    } else {
        let named = inputs.items("values").into_iter().map(|(name, value)| {
            Ok((name.as_deref().unwrap_or_default().to_owned(), number("values", value)?))
        });
        let values = with_ports(named.collect::<Result<Vec<Named>>>()?, a, b).map_err(refuse)?;
        in_expression(expression, &values)
    };
    Ok(vec![Some(match result.map_err(refuse)? {
        Number::Int(value) => Value::Int(value),
        Number::Real(value) => Value::Real(value),
    })])
}
