//! Arithmetic expressions over named numbers: `4*floor(seconds*fps/4)+1`.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = sign (("*" | "/" | "//" | "%") sign)*
//! sign    = "-" sign | power
//! power   = atom ("^" sign)?
//! atom    = NUMBER | NAME | NAME "(" sum ("," sum)* ")" | "(" sum ")"
//! ```
//!
//! Precedence and `//` (division that rounds down) as in Python. Whole numbers stay whole but for
//! `/`, whose result is a Real.

use kino_port::did_you_mean;

use super::number::{self, Number};

/// The longest expression, in bytes.
const LONGEST: usize = 4096;
/// So many brackets, signs and powers may stand within each other.
const DEEPEST: usize = 64;

/// So many characters of an expression stand in a message.
const SHOWN: usize = 60;

/// A text of which a message shows the beginning.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Functions, with how many numbers each takes; none for one or more.
const FUNCTIONS: [(&str, Option<usize>); 9] = [
    ("floor", Some(1)),
    ("ceil", Some(1)),
    ("round", Some(1)),
    ("abs", Some(1)),
    ("sqrt", Some(1)),
    ("min", None),
    ("max", None),
    ("pow", Some(2)),
    ("mod", Some(2)),
];

/// What an expression reads.
enum Known<'n> {
    /// The numbers, by name.
    Values(&'n [(String, Number)]),
    /// The names alone: nothing is computed.
    Names(&'n [&'n str]),
}

/// Computes an expression with these numbers.
///
/// # Errors
/// When it is none, names what is not there, or has no result; the message says where.
pub(super) fn compute(text: &str, values: &[(String, Number)]) -> Result<Number, String> {
    Parser::new(text, Known::Values(values))?.whole()
}

/// Holds an expression against the names that it may use, whatever their numbers will be.
///
/// # Errors
/// When it is none, or names what is not there; the message says where.
pub(super) fn check(text: &str, names: &[&str]) -> Result<(), String> {
    Parser::new(text, Known::Names(names))?.whole().map(drop)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    known: Known<'t>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, known: Known<'t>) -> Result<Self, String> {
        if text.len() > LONGEST {
            let len = text.len();
            return Err(format!("this expression is {len} bytes long, at most {LONGEST} fit"));
        }
        Ok(Parser { text, at: 0, depth: 0, known })
    }

    fn whole(mut self) -> Result<Number, String> {
        let result = self.sum()?;
        self.skip_spaces();
        match self.rest().chars().next() {
            None => Ok(result),
            Some(found) => Err(self.expected("an operator", found)),
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Whether a sign comes next; it is passed.
    fn take(&mut self, sign: &str) -> bool {
        self.skip_spaces();
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    /// The expression as messages show it: around where the parser is, if it is long.
    fn quoted(&self) -> String {
        let chars: Vec<char> = self.text.chars().collect();
        if chars.len() <= SHOWN {
            return self.text.to_owned();
        }
        let at = self.text[..self.at].chars().count();
        let from = at.saturating_sub(SHOWN / 2).min(chars.len() - SHOWN);
        let part: String = chars[from..from + SHOWN].iter().collect();
        let before = if from > 0 { "…" } else { "" };
        let behind = if from + SHOWN < chars.len() { "…" } else { "" };
        format!("{before}{part}{behind}")
    }

    fn expected(&self, what: &str, found: char) -> String {
        let column = self.text[..self.at].chars().count() + 1;
        format!("expected {what} at character {column} of `{}`, found `{found}`", self.quoted())
    }

    /// The result of an operation; while nothing is computed, any number.
    fn apply(&self, op: &str, a: Number, b: Number) -> Result<Number, String> {
        match self.known {
            Known::Names(_) => Ok(a),
            Known::Values(_) => number::compute(a, b, op)
                .map_err(|error| format!("in `{}`: {}", self.quoted(), error.message)),
        }
    }

    fn sum(&mut self) -> Result<Number, String> {
        let mut sum = self.product()?;
        loop {
            let op = match (self.take("+"), self.take("-")) {
                (true, _) => "add",
                (_, true) => "sub",
                _ => return Ok(sum),
            };
            let next = self.product()?;
            sum = self.apply(op, sum, next)?;
        }
    }

    fn product(&mut self) -> Result<Number, String> {
        let mut product = self.sign()?;
        loop {
            product = if self.take("*") {
                let next = self.sign()?;
                self.apply("mul", product, next)?
            } else if self.take("//") {
                let next = self.sign()?;
                let quotient = self.apply("div", product, next)?;
                match quotient {
                    Number::Int(_) => quotient,
                    Number::Real(real) => Number::Real(real.floor()),
                }
            } else if self.take("/") {
                let next = self.sign()?;
                self.apply("div", Number::Real(product.real()), next)?
            } else if self.take("%") {
                let next = self.sign()?;
                self.apply("mod", product, next)?
            } else {
                return Ok(product);
            };
        }
    }

    fn sign(&mut self) -> Result<Number, String> {
        self.deeper()?;
        let result = match self.take("-") {
            true => {
                let of = self.sign()?;
                self.apply("sub", Number::Int(0), of)?
            }
            false => self.power()?,
        };
        self.depth -= 1;
        Ok(result)
    }

    fn power(&mut self) -> Result<Number, String> {
        let base = self.atom()?;
        match self.take("^") {
            true => {
                let exponent = self.sign()?;
                let is_fraction = matches!(exponent, Number::Int(..0));
                let base = if is_fraction { Number::Real(base.real()) } else { base };
                self.apply("pow", base, exponent)
            }
            false => Ok(base),
        }
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        match self.depth > DEEPEST {
            true => Err(format!("more than {DEEPEST} brackets and signs within each other")),
            false => Ok(()),
        }
    }

    fn atom(&mut self) -> Result<Number, String> {
        if self.take("(") {
            let inner = self.sum()?;
            self.close()?;
            return Ok(inner);
        }
        match self.rest().chars().next() {
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.named(),
            Some(found) => Err(self.expected("a number, a name or `(`", found)),
            None => Err(format!("`{}` ends where a number or a name is expected", self.quoted())),
        }
    }

    fn close(&mut self) -> Result<(), String> {
        match (self.take(")"), self.rest().chars().next()) {
            (true, _) => Ok(()),
            (false, Some(found)) => Err(self.expected("`)`", found)),
            (false, None) => Err(format!("`{}` ends where `)` is expected", self.quoted())),
        }
    }

    fn number(&mut self) -> Result<Number, String> {
        let rest = self.rest();
        let mut end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.starts_with(|c: char| c.is_ascii_digit()) {
                let count = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                end = rest.len() - digits.len() + count;
            }
        }
        let written = &rest[..end];
        let parsed = match written.bytes().all(|byte| byte.is_ascii_digit()) {
            true => written.parse().ok().map(Number::Int),
            false => written.parse().ok().filter(|real: &f64| real.is_finite()).map(Number::Real),
        };
        self.at += end;
        parsed.ok_or_else(|| format!("`{}` is no number", shortened(written)))
    }

    fn named(&mut self) -> Result<Number, String> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        self.at += name.len();
        if self.take("(") {
            return self.call(name);
        }
        let found = match self.known {
            Known::Values(values) => {
                values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
            }
            Known::Names(names) => names.contains(&name).then_some(Number::Int(1)),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = match self.known {
                Known::Values(values) => values.iter().map(|(name, _)| &**name).collect(),
                Known::Names(names) => names.to_vec(),
            };
            let advice = did_you_mean(name, names.iter().copied());
            let advice = advice.unwrap_or_else(|| match names.as_slice() {
                [] => "feed it by `values`".to_owned(),
                names => format!("there are {}", names.join(", ")),
            });
            let name = shortened(name);
            format!("`{}` names `{name}`, which is not there; {advice}", self.quoted())
        })
    }

    fn call(&mut self, name: &str) -> Result<Number, String> {
        let names = FUNCTIONS.iter().map(|(name, _)| *name);
        let Some((_, takes)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = names.collect();
            let (name, names) = (shortened(name), names.join(", "));
            return Err(format!("there is no function `{name}`; there are {names}"));
        };
        self.deeper()?;
        let mut numbers = vec![self.sum()?];
        while self.take(",") {
            numbers.push(self.sum()?);
        }
        self.close()?;
        self.depth -= 1;
        if takes.is_some_and(|takes| takes != numbers.len()) {
            let (takes, found) = (takes.unwrap_or_default(), numbers.len());
            let numbers = if takes == 1 { "number" } else { "numbers" };
            return Err(format!("`{name}` takes {takes} {numbers}, found {found}"));
        }
        let first = numbers[0];
        match name {
            "min" | "max" => numbers[1..].iter().try_fold(first, |a, b| self.apply(name, a, *b)),
            "pow" | "mod" => self.apply(name, first, numbers[1]),
            one => self.apply(one, first, Number::Int(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<(String, Number)> {
        [("seconds", Number::Real(1.5)), ("fps", Number::Int(8)), ("n", Number::Int(-7))]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec()
    }

    #[track_caller]
    fn is(text: &str, expected: Number) {
        assert_eq!(compute(text, &values()), Ok(expected), "{text}");
        let values = values();
        let names: Vec<&str> = values.iter().map(|(name, _)| &**name).collect();
        assert_eq!(check(text, &names), Ok(()), "{text}");
    }

    #[test]
    fn expressions_are_computed_as_in_python() {
        is("4*floor(seconds*fps/4)+1", Number::Int(13));
        is("1 + 2 * 3 - 4", Number::Int(3));
        is("-2^2", Number::Int(-4));
        is("2^3^2", Number::Int(512));
        is("2^-1 * 1.0", Number::Real(0.5));
        is("(1 + 2) * -3", Number::Int(-9));
        is("7 / 2", Number::Real(3.5));
        is("7 // 2 + n // 2", Number::Int(-1));
        is("7.5 // 2", Number::Real(3.0));
        is("n % 4", Number::Int(1));
        is("ceil(2.1) + round(2.5) + floor(-0.5)", Number::Int(5));
        is("max(1, fps, 3) - min(n, 2)", Number::Int(15));
        is("abs(n) + sqrt(9) + 1e1 + .5", Number::Real(20.5));
        is("10 - 3 - 2", Number::Int(5));
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let message = compute(text, &values()).unwrap_err();
        assert!(message.contains(expected), "{text}: {message}");
    }

    #[test]
    fn messages_show_what_is_around_the_place() {
        let long = format!("{}?{}", "1+".repeat(1000), "+1".repeat(1000));
        let message = compute(&long, &[]).unwrap_err();
        assert!(message.contains("at character 2001 of `…1+"), "{message}");
        assert!(message.contains("+?+") && message.chars().count() < 150, "{message}");
        let message = compute(&"n".repeat(4000), &[]).unwrap_err();
        assert!(message.chars().count() < 250, "{message}");
        let message = compute(&"9".repeat(4000), &[]).unwrap_err();
        assert!(message.chars().count() < 150, "{message}");
    }

    #[test]
    fn what_is_no_expression_is_told_where() {
        refused("1 +", "ends where a number or a name is expected");
        refused("(1", "ends where `)` is expected");
        refused("1 2", "expected an operator at character 3 of `1 2`, found `2`");
        refused("2 & 3", "expected an operator at character 3");
        refused("second * 2", "did you mean `seconds`?");
        refused("sin(1)", "there is no function `sin`; there are floor,");
        refused("floor(1, 2)", "`floor` takes 1 number, found 2");
        refused("1 / 0", "cannot be divided by 0");
        refused("1.2.3", "`1.2.3` is no number");
        refused("sqrt(0-1)", "there is no square root of -1");
        refused("1e308 * 10", "1e308 times 10 is no finite number");
        refused("7 % 0", "7 has no remainder by 0");
        refused(&"(".repeat(10_000), "at most 4096 fit");
        refused(&"(".repeat(1000), "more than 64");
        refused(&"-".repeat(1000), "more than 64");
        refused(&"1^".repeat(1000), "more than 64");
        refused("99999999999999999999999999999999999999999", "is no number");
        refused("9^99", "too large");
    }
}
