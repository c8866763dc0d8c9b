//! Literals: from the text's tree, or from the command line, by the declared type.

use std::borrow::Cow;

use kino_port::{Literal, Port, PortError, PortType};

use crate::diagnostic::Span;
use crate::ron::{self, Ast, AstKind};

/// Numbers of so many digits fit 64 bits.
const MOST_DIGITS: usize = 19;

/// Decodes what stands in the text for a port of type `ty`; the port itself checks type, range and
/// choices.
pub(crate) fn decode(tree: &Ast<'_>, ty: &PortType) -> Result<Literal, PortError> {
    match &tree.kind {
        AstKind::Text(text) => Ok(Literal::text(text.to_string())),
        AstKind::Bool(value) => Ok(Literal::Bool(*value)),
        AstKind::Number(digits) => number(digits, ty),
        AstKind::List(items) => {
            let ty = if let PortType::List(of) = ty { of } else { ty };
            items.iter().map(|item| decode(item, ty)).collect::<Result<_, _>>().map(Literal::List)
        }
        other => Err(PortError {
            message: format!("expected a value of type {ty}, found {}", other.noun()),
            hint: match other {
                AstKind::Name => Some("write texts in quotes".to_owned()),
                AstKind::Map(_) => Some(
                    "names of items are written where a list is fed, in `in` or `with` of a node"
                        .to_owned(),
                ),
                _ => None,
            },
        }),
    }
}

fn number(written: &str, ty: &PortType) -> Result<Literal, PortError> {
    // Most numbers are short and whole.
    let is_short = (1..=MOST_DIGITS).contains(&written.len());
    if is_short && *ty != PortType::Real && written.bytes().all(|byte| byte.is_ascii_digit()) {
        let digit = |value: u64, byte: u8| value * 10 + u64::from(byte - b'0');
        return Ok(Literal::Int(written.bytes().fold(0, digit).into()));
    }
    let digits: Cow<'_, str> = if written.contains('_') {
        Cow::Owned(written.replace('_', ""))
    } else {
        Cow::Borrowed(written)
    };
    let digits = without_suffix(digits.strip_prefix('+').unwrap_or(&digits));
    if *ty != PortType::Real
        && let Some(value) = whole(digits)
    {
        return Ok(Literal::Int(value));
    }
    let looks_real = digits.bytes().any(|byte| byte.is_ascii_digit())
        || digits.ends_with("inf")
        || digits == "NaN";
    match digits.parse::<f64>() {
        Ok(value) if looks_real => Ok(Literal::Real(value)),
        _ => match whole(digits) {
            Some(value) => Ok(Literal::Int(value)),
            None => Err(PortError { message: format!("`{written}` is no number"), hint: None }),
        },
    }
}

/// The digits without a Rust type behind them, such as `u8` or `f32`, which RON allows.
fn without_suffix(digits: &str) -> &str {
    const SUFFIXES: [&str; 12] =
        ["i8", "i16", "i32", "i64", "i128", "u8", "u16", "u32", "u64", "u128", "f32", "f64"];
    let hex = digits.trim_start_matches('-').starts_with("0x");
    let kept = SUFFIXES.iter().filter(|suffix| !(hex && suffix.starts_with('f')));
    kept.filter_map(|suffix| digits.strip_suffix(suffix))
        .find(|kept| kept.ends_with(|c: char| c.is_ascii_hexdigit() || c == '.'))
        .unwrap_or(digits)
}

fn whole(digits: &str) -> Option<i128> {
    let (sign, magnitude) = digits.strip_prefix('-').map_or((1, digits), |rest| (-1, rest));
    let radix = |prefix: &str, radix| {
        magnitude.strip_prefix(prefix).and_then(|rest| i128::from_str_radix(rest, radix).ok())
    };
    let value = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    value
        .or_else(|| {
            magnitude.bytes().all(|byte| byte.is_ascii_digit()).then(|| magnitude.parse().ok())?
        })
        .map(|value| sign * value)
}

/// Decodes what stands on a command line, unquoted, by the port's type. A list is written `a,b`, or
/// as in a graph, `["a, b"]`, which its texts may need.
pub(crate) fn from_command_line(raw: &str, port: &Port) -> Result<Literal, PortError> {
    if port.is_list() && raw.trim_start().starts_with('[') {
        let list = ron::read(raw, Span::new(0, raw.len())).map_err(|error| PortError {
            message: format!("`{raw}` is no list: {}", error.message),
            hint: Some("write [\"a\", \"b\"] as in a graph, or a,b".to_owned()),
        })?;
        return port.coerce(decode(&list, &port.ty)?);
    }
    if port.is_list() {
        let items = raw.split(',').map(|item| one_from_command_line(item.trim(), port));
        return port.coerce(Literal::List(items.collect::<Result<_, _>>()?));
    }
    port.coerce(one_from_command_line(raw, port)?)
}

fn one_from_command_line(raw: &str, port: &Port) -> Result<Literal, PortError> {
    let refused = || PortError {
        message: format!("expected {}, found `{raw}`", port.expected()),
        hint: None,
    };
    match port.ty {
        PortType::Text | PortType::Path => Ok(Literal::text(raw.to_owned())),
        PortType::Bool => raw.parse().map(Literal::Bool).map_err(|_| refused()),
        PortType::Int if raw == "random" => Ok(Literal::text("random")),
        PortType::Int | PortType::Real => number(raw.trim(), &port.ty).map_err(|_| refused()),
        _ => Err(PortError {
            message: format!("an input of type {} takes no literal value", port.ty),
            hint: Some(
                "use this graph as a node of another graph, and feed the input with an edge"
                    .to_owned(),
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Literal) {
        assert_eq!(number(written, &PortType::Any), Ok(expected));
    }

    #[test]
    fn short_and_long_numbers_are_read_alike() {
        check("0", Literal::Int(0));
        check("007", Literal::Int(7));
        check("9999999999999999999", Literal::Int(9_999_999_999_999_999_999));
        check("18446744073709551615", Literal::Int(u64::MAX.into()));
        check("1_000", Literal::Int(1000));
        check("-12", Literal::Int(-12));
        check("0x10", Literal::Int(16));
        check("7u8", Literal::Int(7));
        check("1.5", Literal::Real(1.5));
        assert_eq!(number("3", &PortType::Real), Ok(Literal::Real(3.0)));
        assert!(number("", &PortType::Any).is_err());
    }
}
