//! Numbers of either kind, and arithmetic on two of them.

use kino_port::{Literal, PlanError};

/// A whole number or a real one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Real(f64),
}

impl Number {
    pub(super) fn real(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Real(value) => value,
        }
    }

    /// The number that a literal is.
    ///
    /// # Errors
    /// When it is something else; the message says what.
    pub(super) fn of(literal: &Literal) -> Result<Self, String> {
        match literal {
            Literal::Int(value) => Ok(Number::Int(*value)),
            Literal::Real(value) => Ok(Number::Real(*value)),
            other => Err(format!("expected a number, found {other}")),
        }
    }
}

/// A number as messages show it: those with many digits by a power of ten.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || (1e-6..1e15).contains(&size) => value.to_string(),
        _ => format!("{value:e}"),
    }
}

/// What is computed, in words.
fn in_words(op: &str, a: &str, b: &str) -> String {
    match op {
        "sub" => format!("{a} less {b}"),
        "mul" => format!("{a} times {b}"),
        "div" => format!("{a} divided by {b}"),
        "mod" => format!("the remainder of {a} by {b}"),
        "pow" => format!("{a} to the power {b}"),
        "abs" => format!("the size of {a}"),
        "min" => format!("the lesser of {a} and {b}"),
        "max" => format!("the greater of {a} and {b}"),
        _ => format!("{a} plus {b}"),
    }
}

/// Refuses what nothing can be divided by.
pub(super) fn check_divisor(b: Number, op: &str) -> Result<(), PlanError> {
    match b.real() == 0.0 && matches!(op, "div" | "mod") {
        true => Err(by_zero("a number", op)),
        false => Ok(()),
    }
}

fn by_zero(a: &str, op: &str) -> PlanError {
    PlanError::at(
        "b",
        match op {
            "mod" => format!("{a} has no remainder by 0"),
            _ => format!("{a} cannot be divided by 0"),
        },
    )
}

/// The whole number that a real one is rounded to.
fn rounded(value: f64, op: &str) -> Result<Number, PlanError> {
    let rounded = match op {
        "floor" => value.floor(),
        "ceil" => value.ceil(),
        _ => value.round(),
    };
    match rounded.abs() < i128::MAX as f64 {
        true => Ok(Number::Int(rounded as i128)),
        false => Err(PlanError::new(format!("{op} of {} is too large", shown(value)))),
    }
}

/// Computes `a op b`; `b` does not count where the operation takes one number.
///
/// # Errors
/// When there is no result, or none that fits.
pub(super) fn compute(a: Number, b: Number, op: &str) -> Result<Number, PlanError> {
    match (a, b, op) {
        (Number::Int(_), _, "floor" | "ceil" | "round") => Ok(a),
        (Number::Real(a), _, "floor" | "ceil" | "round") => rounded(a, op),
        (a, _, "sqrt") => real(a.real(), 0.0, op).map(Number::Real),
        (Number::Int(a), _, "abs") => whole(a, 0, op).map(Number::Int),
        (Number::Real(a), _, "abs") => Ok(Number::Real(a.abs())),
        (Number::Int(a), Number::Int(b), _) => whole(a, b, op).map(Number::Int),
        _ => real(a.real(), b.real(), op).map(Number::Real),
    }
}

fn whole(a: i128, b: i128, op: &str) -> Result<i128, PlanError> {
    if b == 0 && matches!(op, "div" | "mod") {
        return Err(by_zero(&a.to_string(), op));
    }
    let result = match op {
        "sub" => a.checked_sub(b),
        "mul" => a.checked_mul(b),
        "div" => {
            a.checked_div_euclid(b).map(|q| if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q })
        }
        "abs" => a.checked_abs(),
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
    let what = || in_words(op, &a.to_string(), &b.to_string());
    result.ok_or_else(|| PlanError::new(format!("{} is too large", what())))
}

fn real(a: f64, b: f64, op: &str) -> Result<f64, PlanError> {
    if b == 0.0 && matches!(op, "div" | "mod") {
        return Err(by_zero(&shown(a), op));
    }
    let result = match op {
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        "min" => a.min(b),
        "max" => a.max(b),
        "mod" => a - b * (a / b).floor(),
        "pow" => libm::pow(a, b),
        "sqrt" => a.sqrt(),
        _ => a + b,
    };
    if result.is_finite() {
        return Ok(result);
    }
    if op == "sqrt" {
        return Err(PlanError::new(format!("there is no square root of {}", shown(a))));
    }
    let what = in_words(op, &shown(a), &shown(b));
    Err(PlanError::new(format!("{what} is no finite number")))
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
            "-1 to the power 0.5 is no finite number"
        );
    }
}
