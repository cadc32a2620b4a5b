//! JSON text (RFC 8259) as tokens.

use std::borrow::Cow;

use super::JsonError;

/// A scalar, or the beginning of something that holds others.
#[derive(Debug)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    String(Cow<'a, str>),
    /// [`Text::open`] goes inside.
    Array,
    /// [`Text::open`] goes inside.
    Object,
}

/// A number as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    /// It has neither fraction nor exponent.
    pub(super) whole: bool,
}

impl Token<'_> {
    /// What it is, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Number(number) => format!("the number {}", quoted(number.text)),
            Self::String(text) => format!("the string {}", quoted(text)),
            Self::Array => "an array".to_owned(),
            Self::Object => "an object".to_owned(),
        }
    }
}

/// A text for a message: a long one ends in `…`.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 40; // characters: a message stays on one line
    match text.char_indices().nth(LONGEST) {
        None => format!("`{}`", text.escape_debug()),
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default().escape_debug()),
    }
}

/// A place in a JSON text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, JsonError> {
        match str::from_utf8(bytes) {
            Ok(text) => {
                let mut text = Self { text, at: 0 };
                text.skip_space();
                Ok(text)
            }
            Err(error) => Err(JsonError::syntax(bytes, error.valid_up_to(), "the text is not UTF-8")),
        }
    }

    /// Nothing but space may follow.
    pub(super) fn finish(mut self) -> Result<(), JsonError> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.problem("text follows the value")),
        }
    }

    /// Reads a scalar, or looks at the beginning of an array or object.
    pub(super) fn token(&mut self) -> Result<Token<'a>, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(b'"') => Ok(Token::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number(self.number()?)),
            Some(b't') => self.word(b"true", Token::Bool(true)),
            Some(b'f') => self.word(b"false", Token::Bool(false)),
            Some(b'n') => self.word(b"null", Token::Null),
            Some(_) => Err(self.problem("expected a value")),
            None => Err(self.problem("the text ends where a value should be")),
        }
    }

    /// Steps over the opening bracket; whether a first member follows.
    pub(super) fn open(&mut self, end: u8) -> bool {
        self.at += 1;
        self.skip_space();
        !self.eat(end)
    }

    /// Steps over a comma or the closing bracket; whether another member follows.
    pub(super) fn more(&mut self, end: u8) -> Result<bool, JsonError> {
        self.skip_space();
        if self.eat(end) {
            return Ok(false);
        }
        if !self.eat(b',') {
            return Err(self.problem(format!("expected `,` or `{}`", char::from(end))));
        }
        self.skip_space();
        Ok(true)
    }

    /// Reads a key and its colon.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.problem("expected a key in quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if !self.eat(b':') {
            return Err(self.problem("expected `:` after a key"));
        }
        self.skip_space();
        Ok(key)
    }

    pub(super) fn repeated(&self, key: &str) -> JsonError {
        self.problem(format!("the key {} is repeated", quoted(key)))
    }

    pub(super) fn problem(&self, problem: impl Into<String>) -> JsonError {
        JsonError::syntax(self.text.as_bytes(), self.at, problem)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn word(&mut self, word: &[u8], token: Token<'a>) -> Result<Token<'a>, JsonError> {
        if !self.rest().starts_with(word) {
            return Err(self.problem("expected a value"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn number(&mut self) -> Result<Number<'a>, JsonError> {
        let start = *self;
        self.eat(b'-');
        let zero = self.peek() == Some(b'0');
        if self.digits()? > 1 && zero {
            return Err(start.problem("a number begins with a superfluous 0"));
        }
        let mut whole = true;
        if self.eat(b'.') {
            whole = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start.at..self.at).unwrap_or_default();
        Ok(Number { text, whole })
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let digits = self.advance(|byte| byte.is_ascii_digit());
        if digits == 0 { Err(self.problem("expected a digit")) } else { Ok(digits) }
    }

    /// A string from its opening quote; borrowed where it has no escape.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let plain = self.plain();
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.problem("a control character stands in a string")),
                None => return Err(self.problem("the text ends inside a string")),
            }
            text.push_str(self.plain());
        }
    }

    /// Characters up to the next quote, backslash or control character.
    fn plain(&mut self) -> &'a str {
        let start = self.at;
        self.advance(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escaped = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            Some(_) | None => return Err(self.problem("there is no such escape")),
        };
        self.at += 1;
        Ok(escaped)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.hex()?;
        if let Some(scalar) = char::from_u32(u32::from(first)) {
            return Ok(scalar);
        }
        let second = if self.rest().starts_with(b"\\u") {
            self.at += 2;
            Some(self.hex()?)
        } else {
            None
        };
        let pair = [Some(first), second].into_iter().flatten();
        match char::decode_utf16(pair).next() {
            Some(Ok(scalar)) => Ok(scalar),
            Some(Err(_)) | None => Err(self.problem("a surrogate stands alone")),
        }
    }

    fn hex(&mut self) -> Result<u16, JsonError> {
        let digits = self.rest().get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let Some(number) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) else {
            return Err(self.problem("expected four hexadecimal digits"));
        };
        self.at += 4;
        Ok(number)
    }

    fn skip_space(&mut self) {
        self.advance(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// Steps over the bytes of a kind; how many they were.
    fn advance(&mut self, kind: impl Fn(u8) -> bool) -> usize {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !kind(*byte)).unwrap_or(rest.len());
        self.at += length;
        length
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }
}
