//! A reader of RON that keeps the place of everything: text → tree with spans.
//!
//! It accepts what RON accepts: comments, trailing commas, raw strings, characters, numbers of
//! every base and with suffixes, `Some(…)`, raw names, and `#![enable(…)]` in front, which changes
//! nothing. It never recurses deeper than [`DEEPEST`]. Duplicate keys are refused where the tree is
//! used.

use std::borrow::Cow;

use crate::diagnostic::{Span, SyntaxError};

/// How deep brackets may nest.
const DEEPEST: usize = 64;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Ast<'a> {
    /// What stands there.
    pub kind: AstKind<'a>,
    /// Its place.
    pub span: Span,
}

/// What stands there.
#[derive(Clone, Debug)]
pub enum AstKind<'a> {
    /// A text or a character, escapes resolved.
    Text(Cow<'a, str>),
    /// A number as it is written.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// A name alone, such as `None`.
    Name,
    /// `[a, b]`.
    List(Vec<Ast<'a>>),
    /// `{a: b}`.
    Map(Vec<(Ast<'a>, Ast<'a>)>),
    /// `Name(key: value)` or `(key: value)`.
    Struct(Box<Fields<'a>>),
    /// `Name(a, b)` or `(a, b)`.
    Tuple(Vec<Ast<'a>>),
}

/// The fields of a struct.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The name in front of the bracket.
    pub name: Option<&'a str>,
    /// Just behind the opening bracket.
    pub opening: u32,
    /// Each name with its value, in order.
    pub fields: Vec<(Key<'a>, Ast<'a>)>,
}

/// A field's name with its place.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The name.
    pub name: &'a str,
    /// Its place.
    pub span: Span,
}

impl AstKind<'_> {
    /// What it is, for messages.
    pub fn noun(&self) -> &'static str {
        match self {
            AstKind::Text(_) => "a text",
            AstKind::Number(_) => "a number",
            AstKind::Bool(_) => "true or false",
            AstKind::Name => "a bare name",
            AstKind::List(_) => "a list",
            AstKind::Map(_) => "a map",
            AstKind::Struct(_) => "a struct",
            AstKind::Tuple(_) => "a tuple",
        }
    }
}

/// Reads the one value that stands at `span`; places count from the start of the text.
///
/// # Errors
/// Where the text is no RON.
pub fn read(text: &str, span: Span) -> Result<Ast<'_>, SyntaxError> {
    let text = text.get(..span.end as usize).unwrap_or(text);
    let mut reader = Reader { text, at: span.start as usize, pairs: Vec::new() };
    reader.skip_head()?;
    let tree = reader.value(0)?;
    reader.skip_blank()?;
    if reader.at < text.len() {
        return Err(reader.error("expected the end of the file, found more"));
    }
    Ok(tree)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The pairs of the maps that are open, the innermost last: each map then takes as much memory
    /// as it has pairs.
    pairs: Vec<(Ast<'a>, Ast<'a>)>,
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn span_from(&self, start: usize) -> Span {
        Span::new(start, self.at)
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        let len = self.rest().chars().next().map_or(0, char::len_utf8);
        SyntaxError { message: message.into(), span: Span::new(self.at, self.at + len), hint: None }
    }

    fn error_from(&self, start: usize, message: impl Into<String>) -> SyntaxError {
        SyntaxError { message: message.into(), span: self.span_from(start), hint: None }
    }

    fn found(&self) -> String {
        self.rest()
            .chars()
            .next()
            .map_or("the end of the file".to_owned(), |c| format!("`{}`", c.escape_debug()))
    }

    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t'..=b'\r') => self.at += 1,
                Some(b'/') if self.rest().starts_with("//") => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                }
                Some(b'/') if self.rest().starts_with("/*") => self.skip_block_comment()?,
                // Few texts have any other blanks.
                Some(byte) if !byte.is_ascii() => {
                    let rest = self.rest();
                    let blank = rest.len() - rest.trim_start().len();
                    if blank == 0 {
                        return Ok(());
                    }
                    self.at += blank;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Skips a byte order mark, and extensions such as `#![enable(implicit_some)]`: what they allow
    /// is allowed anyway.
    fn skip_head(&mut self) -> Result<(), SyntaxError> {
        if self.rest().starts_with('\u{feff}') {
            self.at += '\u{feff}'.len_utf8();
        }
        self.skip_blank()?;
        while self.rest().starts_with("#!") {
            let start = self.at;
            let Some(end) = self.rest().find(']') else {
                self.at += 2;
                return Err(self.error_from(start, "expected extensions such as #![enable(…)]"));
            };
            self.at += end + 1;
            self.skip_blank()?;
        }
        Ok(())
    }

    fn skip_block_comment(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        let mut depth = 0;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                let Some(c) = self.rest().chars().next() else {
                    self.at = start + 2;
                    return Err(self.error_from(start, "this comment is never closed"));
                };
                self.at += c.len_utf8();
            }
        }
    }

    fn name(&mut self) -> &'a str {
        let (start, bytes) = (self.at, self.text.as_bytes());
        while bytes.get(self.at).is_some_and(|byte| is_name_byte(*byte)) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn value(&mut self, depth: usize) -> Result<Ast<'a>, SyntaxError> {
        if depth > DEEPEST {
            return Err(self.error(format!("brackets nest deeper than {DEEPEST}")));
        }
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => AstKind::Text(self.string()?),
            Some(b'r') if self.rest().starts_with("r\"") || self.rest().starts_with("r#") => {
                AstKind::Text(Cow::Borrowed(self.raw_string()?))
            }
            Some(b'\'') => AstKind::Text(self.character()?),
            Some(b'[') => AstKind::List(self.list(depth)?),
            Some(b'{') => AstKind::Map(self.map(depth)?),
            Some(b'(') => self.parens(None, depth)?,
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => AstKind::Number(self.number()),
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => self.named(depth)?,
            _ => return Err(self.error(format!("expected a value, found {}", self.found()))),
        };
        Ok(Ast { kind, span: self.span_from(start) })
    }

    fn named(&mut self, depth: usize) -> Result<AstKind<'a>, SyntaxError> {
        let name = self.name();
        match name {
            "true" => return Ok(AstKind::Bool(true)),
            "false" => return Ok(AstKind::Bool(false)),
            "inf" | "NaN" => return Ok(AstKind::Number(name)),
            _ => {}
        }
        let after_name = self.at;
        self.skip_blank()?;
        if self.peek() == Some(b'(') {
            return match self.parens(Some(name), depth)? {
                AstKind::Tuple(mut items) if name == "Some" && items.len() == 1 => {
                    Ok(items.swap_remove(0).kind)
                }
                kind => Ok(kind),
            };
        }
        self.at = after_name;
        Ok(AstKind::Name)
    }

    fn number(&mut self) -> &'a str {
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(byte) = self.peek() {
            let sign = matches!(byte, b'+' | b'-');
            let exponent = self.at > start && matches!(bytes[self.at - 1], b'e' | b'E');
            if !(is_name_byte(byte) || byte == b'.' || sign && (self.at == start || exponent)) {
                break;
            }
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Items up to `close`, with commas between; the bracket at the cursor is the opening one.
    fn items(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), SyntaxError>,
    ) -> Result<(), SyntaxError> {
        let open = self.at;
        self.at += 1;
        loop {
            self.skip_blank()?;
            match self.peek() {
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                None => {
                    let found = Span::new(open, open + 1);
                    let message =
                        format!("this bracket is never closed: expected `{}`", close as char);
                    return Err(SyntaxError { message, span: found, hint: None });
                }
                _ => item(self)?,
            }
            self.skip_blank()?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {}
                None => {}
                _ => {
                    let message =
                        format!("expected `,` or `{}`, found {}", close as char, self.found());
                    return Err(self.error(message));
                }
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Ast<'a>>, SyntaxError> {
        let mut list = Vec::new();
        self.items(b']', |reader| {
            list.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(list)
    }

    fn colon(&mut self) -> Result<(), SyntaxError> {
        self.skip_blank()?;
        if self.peek() != Some(b':') {
            return Err(self.error(format!("expected `:`, found {}", self.found())));
        }
        self.at += 1;
        self.skip_blank()
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Ast<'a>, Ast<'a>)>, SyntaxError> {
        let base = self.pairs.len();
        self.items(b'}', |reader| {
            let key = reader.value(depth + 1)?;
            reader.colon()?;
            let value = reader.value(depth + 1)?;
            reader.pairs.push((key, value));
            Ok(())
        })?;
        Ok(match base {
            0 => std::mem::take(&mut self.pairs),
            base => self.pairs.drain(base..).collect(),
        })
    }

    /// The field name at the cursor, if a colon follows it.
    fn field(&mut self) -> Result<Option<Key<'a>>, SyntaxError> {
        let start = self.at;
        let raw = self.peek() == Some(b'r')
            && self.rest().starts_with("r#")
            && !self.rest().starts_with("r#\"");
        self.at += if raw { 2 } else { 0 };
        if !self.peek().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
            self.at = start;
            return Ok(None);
        }
        let name = self.name();
        let span = self.span_from(start);
        self.skip_blank()?;
        if self.peek() == Some(b':') {
            return Ok(Some(Key { name, span }));
        }
        self.at = start;
        Ok(None)
    }

    fn parens(&mut self, name: Option<&'a str>, depth: usize) -> Result<AstKind<'a>, SyntaxError> {
        let opening = self.at as u32 + 1;
        let (mut fields, mut items) = (Vec::new(), Vec::new());
        self.items(b')', |reader| {
            match reader.field()? {
                Some(key) if items.is_empty() => {
                    reader.colon()?;
                    if fields.capacity() == 0 {
                        // Most structs are nodes: `op`, `in` and `with`.
                        fields.reserve_exact(3);
                    }
                    fields.push((key, reader.value(depth + 1)?));
                }
                Some(_) => return Err(reader.error("fields with and without a name do not mix")),
                None if fields.is_empty() => items.push(reader.value(depth + 1)?),
                None => {
                    let message =
                        format!("expected a field `name: value`, found {}", reader.found());
                    return Err(reader.error(message));
                }
            }
            Ok(())
        })?;
        if items.is_empty() {
            Ok(AstKind::Struct(Box::new(Fields { name, opening, fields })))
        } else {
            Ok(AstKind::Tuple(items))
        }
    }

    fn raw_string(&mut self) -> Result<&'a str, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let hashes = self.rest().bytes().take_while(|byte| *byte == b'#').count();
        self.at += hashes;
        if self.peek() != Some(b'"') {
            return Err(self.error_from(start, "expected a raw string such as r#\"…\"#"));
        }
        self.at += 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let Some(len) = self.rest().find(&close) else {
            return Err(self.error_from(start, "this raw string is never closed"));
        };
        let text = &self.rest()[..len];
        self.at += len + close.len();
        Ok(text)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let stop = self.rest().bytes().position(|byte| matches!(byte, b'"' | b'\\'));
        let Some(stop) = stop else { return Err(self.unclosed(start)) };
        let plain = &self.rest()[..stop];
        self.at += stop;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            let Some(c) = self.rest().chars().next() else { return Err(self.unclosed(start)) };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Cow::Owned(text)),
                '\\' => self.escape(&mut text)?,
                c => text.push(c),
            }
        }
    }

    /// A character such as `'a'`, which stands for a text of its own.
    fn character(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        match self.rest().chars().next() {
            Some('\\') => {
                self.at += 1;
                self.escape(&mut text)?;
            }
            Some(c) => {
                self.at += c.len_utf8();
                text.push(c);
            }
            None => {}
        }
        if self.peek() != Some(b'\'') {
            let mut error = self.error_from(start, "this character is never closed");
            error.hint = Some("write texts in double quotes".to_owned());
            return Err(error);
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    fn unclosed(&self, start: usize) -> SyntaxError {
        SyntaxError {
            message: "this string is never closed".to_owned(),
            span: Span::new(start, start + 1),
            hint: Some("a quote inside a string is written \\\"".to_owned()),
        }
    }

    fn escape(&mut self, into: &mut String) -> Result<(), SyntaxError> {
        let start = self.at - 1;
        let Some(c) = self.rest().chars().next() else { return Err(self.unclosed(start)) };
        self.at += c.len_utf8();
        let plain = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            '"' | '\'' | '\\' => c,
            '\n' => {
                let blank = self.rest().len() - self.rest().trim_start().len();
                self.at += blank;
                return Ok(());
            }
            'x' | 'u' => self.code_point(c, start)?,
            _ => {
                let mut error =
                    self.error_from(start, format!("there is no escape `\\{}`", c.escape_debug()));
                error.hint =
                    Some("a backslash is written \\\\, or use a raw string r\"…\"".to_owned());
                return Err(error);
            }
        };
        into.push(plain);
        Ok(())
    }

    fn code_point(&mut self, kind: char, start: usize) -> Result<char, SyntaxError> {
        let rest = self.rest();
        let (digits, len) = match (kind, rest.strip_prefix('{')) {
            ('u', Some(inner)) => inner.find('}').map_or(("", 0), |end| (&inner[..end], end + 2)),
            ('u', None) => (rest.get(..4).unwrap_or(""), 4),
            _ => (rest.get(..2).unwrap_or(""), 2),
        };
        let hex = !digits.is_empty()
            && digits.len() <= 6
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code =
            if hex { u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) } else { None };
        let Some(c) = code else {
            return Err(self.error_from(start, "expected a code point such as \\x41 or \\u{1F600}"));
        };
        self.at += len;
        Ok(c)
    }
}
