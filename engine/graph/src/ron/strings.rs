//! Texts of RON: quoted, raw, and single characters, with their escapes.

use std::borrow::Cow;

use super::Reader;
use crate::diagnostic::{Fault, Span};

impl<'a> Reader<'a> {
    pub(super) fn raw_string(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        self.at += 1;
        let hashes = self.rest().bytes().take_while(|byte| *byte == b'#').count();
        self.at += hashes;
        if self.peek() != Some(b'"') {
            return Err(self.fault_from(start, "expected a raw string such as r#\"…\"#"));
        }
        self.at += 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let Some(len) = self.rest().find(&close) else {
            return Err(self.fault_from(start, "this raw string is never closed"));
        };
        let text = &self.rest()[..len];
        self.at += len + close.len();
        Ok(text)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        self.at += 1;
        let Some(stop) = self.rest().find(['"', '\\']) else { return Err(self.unclosed(start)) };
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
    pub(super) fn character(&mut self) -> Result<Cow<'a, str>, Fault> {
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
            let mut fault = self.fault_from(start, "this character is never closed");
            fault.hint = Some("texts stand in double quotes".to_owned());
            return Err(fault);
        }
        self.at += 1;
        Ok(Cow::Owned(text))
    }

    fn unclosed(&self, start: usize) -> Fault {
        Fault {
            message: "this string is never closed".to_owned(),
            span: Span::new(start, start + 1),
            hint: Some("a quote inside a string is written \\\"".to_owned()),
        }
    }

    fn escape(&mut self, into: &mut String) -> Result<(), Fault> {
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
                let mut fault =
                    self.fault_from(start, format!("there is no escape `\\{}`", c.escape_debug()));
                fault.hint =
                    Some("a backslash is written \\\\, or use a raw string r\"…\"".to_owned());
                return Err(fault);
            }
        };
        into.push(plain);
        Ok(())
    }

    fn code_point(&mut self, kind: char, start: usize) -> Result<char, Fault> {
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
            return Err(self.fault_from(start, "expected a code point such as \\x41 or \\u{1F600}"));
        };
        self.at += len;
        Ok(c)
    }
}
