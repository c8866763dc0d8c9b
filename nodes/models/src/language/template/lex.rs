//! The text of a template, cut into texts, outputs and blocks, and those into tokens.
//!
//! White space goes as transformers has it: `trim_blocks` and `lstrip_blocks` of Jinja2, and its
//! marks `-` and `+`.

/// A token of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'t> {
    /// A name or keyword.
    Name(&'t str),
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Real(f64),
    /// An operator or bracket.
    Op(&'static str),
}

/// A part of a template.
#[derive(Debug)]
pub(super) enum Piece<'t> {
    /// It stands in the result as it is.
    Text(&'t str),
    /// `{{ … }}`.
    Output(Vec<Token<'t>>),
    /// `{% … %}`.
    Block(Vec<Token<'t>>),
}

/// Operators, longer ones first.
const OPS: [&str; 27] = [
    "==", "!=", "<=", ">=", "//", "**", "<", ">", "=", "+", "-", "*", "/", "%", "~", "|", ".", ",",
    ":", "(", ")", "[", "]", "{", "}", "!", ";",
];

/// Cuts a template into its parts.
///
/// # Errors
/// When one does not end, or has what is no token.
pub(super) fn pieces(source: &str) -> Result<Vec<Piece<'_>>, String> {
    let source = source.strip_suffix('\n').unwrap_or(source);
    let mut pieces = Vec::new();
    let (mut at, mut strips, mut at_line_start) = (0, false, true);
    loop {
        let rest = &source[at..];
        let is_mark = |at: &usize| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
        let opening = rest.match_indices('{').map(|(at, _)| at).find(is_mark);
        let Some(opening) = opening else {
            push_text(&mut pieces, if strips { rest.trim_start() } else { rest });
            return Ok(pieces);
        };
        let mut text = &rest[..opening];
        let kind = rest.as_bytes()[opening + 1];
        let mut inside = at + opening + 2;
        match source.as_bytes().get(inside) {
            Some(b'-') => {
                text = text.trim_end();
                inside += 1;
            }
            Some(b'+') => inside += 1,
            _ if kind != b'{' => text = without_indent(text, at_line_start),
            _ => {}
        }
        push_text(&mut pieces, if strips { text.trim_start() } else { text });
        let (tokens, end) = match kind {
            b'#' => {
                let end = source[inside..].find("#}").ok_or("a comment does not end")?;
                (Vec::new(), inside + end)
            }
            _ => tokens(source, inside, if kind == b'{' { "}}" } else { "%}" })?,
        };
        let mark = source.as_bytes()[..end].last().filter(|_| end > inside).copied();
        at = end + 2;
        strips = mark == Some(b'-');
        at_line_start = false;
        if !strips && mark != Some(b'+') && kind != b'{' && source[at..].starts_with('\n') {
            at += 1;
            at_line_start = true;
        }
        match kind {
            b'{' => pieces.push(Piece::Output(tokens)),
            b'%' => pieces.push(Piece::Block(tokens)),
            _ => {}
        }
    }
}

fn push_text<'t>(pieces: &mut Vec<Piece<'t>>, text: &'t str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// A text without the blanks before a block that begins its line (`lstrip_blocks`).
fn without_indent(text: &str, at_line_start: bool) -> &str {
    let line = text.rfind('\n').map_or(0, |end| end + 1);
    match (line > 0 || at_line_start) && text[line..].chars().all(char::is_whitespace) {
        true => &text[..line],
        false => text,
    }
}

/// The tokens up to a closing mark, and where that begins.
fn tokens<'t>(
    source: &'t str,
    mut at: usize,
    close: &str,
) -> Result<(Vec<Token<'t>>, usize), String> {
    let mut tokens = Vec::new();
    let mut braces = 0usize;
    loop {
        let rest = &source[at..];
        let first = rest.chars().next().ok_or_else(|| format!("`{close}` is missing"))?;
        if braces == 0 {
            // A mark about white space belongs to the end.
            for (length, mark) in [(0, ""), (1, "-"), (1, "+")] {
                if rest.starts_with(mark) && rest[length..].starts_with(close) {
                    return Ok((tokens, at + length));
                }
            }
        }
        if first.is_whitespace() {
            at += first.len_utf8();
        } else if first.is_ascii_digit() {
            let (token, length) = number(rest)?;
            tokens.push(token);
            at += length;
        } else if first == '_' || first.is_alphabetic() {
            let is_part = |c: char| c == '_' || c.is_alphanumeric();
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            tokens.push(Token::Name(&rest[..length]));
            at += length;
        } else if first == '"' || first == '\'' {
            let (text, length) = text(rest, first)?;
            tokens.push(Token::Text(text));
            at += length;
        } else {
            let op = OPS.iter().find(|op| rest.starts_with(**op));
            let op = *op.ok_or_else(|| format!("`{first}` is no operator"))?;
            match op {
                "{" => braces += 1,
                "}" => braces = braces.saturating_sub(1),
                _ => {}
            }
            tokens.push(Token::Op(op));
            at += op.len();
        }
    }
}

fn number(rest: &str) -> Result<(Token<'_>, usize), String> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let whole = digits(rest);
    let behind = &rest[whole..];
    let wrong = |text: &str| format!("`{text}` is no number that is read");
    if let Some(fraction) = behind.strip_prefix('.').filter(|f| digits(f) > 0) {
        let length = whole + 1 + digits(fraction);
        let number = rest[..length].parse().map_err(|_| wrong(&rest[..length]))?;
        return Ok((Token::Real(number), length));
    }
    let number = rest[..whole].parse().map_err(|_| wrong(&rest[..whole]))?;
    Ok((Token::Int(number), whole))
}

/// A text in quotes, and how long it is with them.
fn text(rest: &str, quote: char) -> Result<(String, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            _ if char == quote => return Ok((text, at + 1)),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some('\n') => {}
                Some(same @ ('\\' | '\'' | '"')) => text.push(same),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    text.push(code.ok_or("an escape `\\u` without four digits")?);
                }
                Some(other) => text.extend(['\\', other]),
                None => break,
            },
            char => text.push(char),
        }
    }
    Err("a text in quotes does not end".to_owned())
}
