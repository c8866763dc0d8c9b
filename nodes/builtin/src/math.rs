//! `math`: arithmetic on two numbers, computed while planning where they are known.

use std::borrow::Cow;

use kino_node::{Cx, Error, Inputs, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, Literal, NodeTraits, PlanError, Port, PortType, Signature, StepInfo, edge, ports,
    text,
};

use crate::infer::{InferResult, refuse};

/// Arithmetic on two numbers.
pub(crate) static MATH: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("math"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("a", PortType::Any).about("The first number: an Int or a Real."),
            zero("b").about("The second number."),
            text("op", "add").choices(&OPERATIONS).about(
                "What to do: a + b, a − b, a · b, a / b, the lesser, the greater, aᵇ, the \
                     remainder of a / b."
            ),
        ],
        outputs: ports![
            edge("value", PortType::Any).about("The result; an Int if both numbers are.")
        ],
        traits: NodeTraits::PORTABLE,
    },
    infer,
    run,
};

const ABOUT: &str = "Computes with two numbers. Two whole numbers give a whole number: `div` then \
rounds down, and `mod` has the sign of `b`. If either is a Real, so is the result. What is known \
before the run is computed while planning, so that a result can feed `frames` or `width` and is \
checked against their ranges at once.\n\n\
Example:\n    // 4k+1 frames of some seconds at 16 a second\n    \"frames\": (op: \"math\", in: \
{\"a\": \"inputs.seconds\"}, with: {\"b\": 16, \"op\": \"mul\"}),\n    \"count\":  (op: \"math\", \
in: {\"a\": \"frames\"}, with: {\"b\": 1}),";

const OPERATIONS: [Cow<'static, str>; 8] = [
    Cow::Borrowed("add"),
    Cow::Borrowed("sub"),
    Cow::Borrowed("mul"),
    Cow::Borrowed("div"),
    Cow::Borrowed("min"),
    Cow::Borrowed("max"),
    Cow::Borrowed("pow"),
    Cow::Borrowed("mod"),
];

/// A number of either kind, 0 where nothing feeds it.
const fn zero(name: &'static str) -> Port {
    let mut port = edge(name, PortType::Any);
    std::mem::forget(port.default.replace(Literal::Int(0)));
    port
}

#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Real(f64),
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Real(value) => value,
        }
    }
}

fn infer(_: &Services, facts: &Facts) -> InferResult {
    let mut errors = Vec::new();
    let mut number = |port: &str| match facts.get(port)?.literal()? {
        Literal::Int(value) => Some(Number::Int(*value)),
        Literal::Real(value) => Some(Number::Real(*value)),
        other => {
            errors.push(PlanError::at(port, format!("expected a number, found {other}")));
            None
        }
    };
    let (a, b) = (number("a"), number("b"));
    if !errors.is_empty() {
        return Err(errors);
    }
    let (Some(a), Some(b), Some(op)) = (a, b, facts.text("op")) else {
        return Ok(StepInfo::default());
    };
    let literal = match compute(a, b, op).map_err(|error| vec![error])? {
        Number::Int(value) => Literal::Int(value),
        Number::Real(value) => Literal::Real(value),
    };
    Ok(StepInfo { outputs: vec![Fact::Literal(literal)], ..StepInfo::default() })
}

fn run(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let number = |port: &str| match inputs.get(port) {
        Some(Value::Int(value)) => Ok(Number::Int(*value)),
        Some(Value::Real(value)) => Ok(Number::Real(*value)),
        Some(other) => {
            Err(Error::input(port, format!("expected a number, found {}", other.type_name())))
        }
        None => Err(Error::input(port, "nothing feeds it")),
    };
    let result = compute(number("a")?, number("b")?, inputs.text("op")?).map_err(refuse)?;
    Ok(vec![Some(match result {
        Number::Int(value) => Value::Int(value),
        Number::Real(value) => Value::Real(value),
    })])
}

fn compute(a: Number, b: Number, op: &str) -> Result<Number, PlanError> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => whole(a, b, op).map(Number::Int),
        _ => real(a.real(), b.real(), op).map(Number::Real),
    }
}

fn whole(a: i128, b: i128, op: &str) -> Result<i128, PlanError> {
    if b == 0 && matches!(op, "div" | "mod") {
        return Err(PlanError::at("b", format!("{a} cannot be divided by 0")));
    }
    let result = match op {
        "sub" => a.checked_sub(b),
        "mul" => a.checked_mul(b),
        "div" => {
            a.checked_div_euclid(b).map(|q| if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q })
        }
        "min" => Some(a.min(b)),
        "max" => Some(a.max(b)),
        "mod" => a.checked_rem_euclid(b).map(|r| if b < 0 && r != 0 { r + b } else { r }),
        "pow" => {
            let Ok(exponent) = u32::try_from(b) else {
                return Err(PlanError::at("b", format!("{a} to the power {b} is no whole number"))
                    .hint("write `a` with a decimal point"));
            };
            a.checked_pow(exponent)
        }
        _ => a.checked_add(b),
    };
    result.ok_or_else(|| PlanError::new(format!("{op} of {a} and {b} is too large")))
}

fn real(a: f64, b: f64, op: &str) -> Result<f64, PlanError> {
    if b == 0.0 && matches!(op, "div" | "mod") {
        return Err(PlanError::at("b", format!("{a} cannot be divided by 0")));
    }
    let result = match op {
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        "min" => a.min(b),
        "max" => a.max(b),
        "mod" => a - b * (a / b).floor(),
        "pow" => libm::pow(a, b),
        _ => a + b,
    };
    if result.is_finite() {
        return Ok(result);
    }
    Err(PlanError::new(format!("{op} of {a} and {b} is no finite number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: i128, b: i128, op: &str, expected: i128) {
        assert_eq!(whole(a, b, op), Ok(expected), "{a} {op} {b}");
    }

    #[test]
    fn division_rounds_down_and_the_remainder_fits() {
        for (a, b) in [(7, 2), (-7, 2), (7, -2), (-7, -2), (6, -3), (0, 5), (1, 7), (-1, 7)] {
            let quotient = (a as f64 / b as f64).floor() as i128;
            check(a, b, "div", quotient);
            check(a, b, "mod", a - b * quotient);
            assert_eq!(real(a as f64, b as f64, "mod"), Ok((a - b * quotient) as f64));
        }
    }

    #[test]
    fn what_has_no_result_is_refused() {
        let message = |result: Result<i128, PlanError>| result.unwrap_err().message;
        assert_eq!(message(whole(3, 0, "div")), "3 cannot be divided by 0");
        assert_eq!(message(whole(2, -1, "pow")), "2 to the power -1 is no whole number");
        assert!(message(whole(i128::MAX, 2, "mul")).ends_with("is too large"));
        assert_eq!(
            real(-1.0, 0.5, "pow").unwrap_err().message,
            "pow of -1 and 0.5 is no finite number"
        );
    }
}
