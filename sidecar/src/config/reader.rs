//! Reads a TOML document key by key and remembers every mistake with its line, instead of stopping at the first.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Path as the user named it.
    pub file: String,
    /// Line, counted from 1; nothing for the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message)?,
            None => write!(f, "{}: {}", self.file, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

/// Collects the mistakes of one file.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    file: String,
    text: &'t str,
    mistakes: Vec<Mistake>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        Self { file: file.to_owned(), text, mistakes: Vec::new() }
    }

    /// The document's root table; syntax errors become mistakes.
    pub(super) fn root(&mut self) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span();
            self.mistake(at, error.message().to_owned(), None);
        }
        table.into_inner()
    }

    pub(super) fn mistake(&mut self, at: Option<Range<usize>>, message: String, hint: Option<String>) {
        let line = at.and_then(|at| self.text.get(..at.start)).map(|before| before.matches('\n').count() + 1);
        self.mistakes.push(Mistake { file: self.file.clone(), line, message, hint });
    }

    /// Mistakes so far.
    pub(super) fn count(&self) -> usize {
        self.mistakes.len()
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }
}

/// One table of the document, read key by key; what nobody read at the end is a mistake.
#[derive(Debug)]
pub(super) struct Section<'d, 't> {
    name: String,
    table: Option<&'d DeTable<'t>>,
    span: Option<Range<usize>>,
    known: BTreeSet<&'static str>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: Range<usize>,
}

impl<'d, 't> Section<'d, 't> {
    pub(super) fn root(table: &'d DeTable<'t>) -> Self {
        Self { name: String::new(), table: Some(table), span: None, known: BTreeSet::new() }
    }

    /// Whether the document has the table at all.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn section(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Self {
        let name = self.path(key);
        let mut section = Self { name, table: None, span: None, known: BTreeSet::new() };
        if let Some(value) = self.take(key) {
            section.span = Some(value.span());
            match value.get_ref().as_table() {
                Some(table) => section.table = Some(table),
                None => reader.mistake(Some(value.span()), format!("`{}` is not a table", section.name), None),
            }
        }
        section
    }

    /// Every table of an array of tables: `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let name = self.path(key);
        let section = |item: &'d Spanned<DeValue<'t>>| {
            let table = item.get_ref().as_table()?;
            Some(Self { name: name.clone(), table: Some(table), span: Some(item.span()), known: BTreeSet::new() })
        };
        let sections = value.get_ref().as_array().and_then(|items| items.iter().map(section).collect());
        sections.unwrap_or_else(|| {
            let _: Option<()> = self.wrong(key, value, &format!("tables written as [[{name}]]"), reader);
            Vec::new()
        })
    }

    /// Where the table stands.
    pub(super) fn at(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    pub(super) fn text(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<Found<String>> {
        let value = self.take(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Found { value: text.to_owned(), at: value.span() }),
            None => self.wrong(key, value, "a string", reader),
        }
    }

    pub(super) fn required_text(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<Found<String>> {
        let missing = self.table.is_none_or(|table| !table.contains_key(key));
        if missing {
            self.known.insert(key);
            reader.mistake(self.span.clone(), format!("`{}` is missing", self.path(key)), None);
            return None;
        }
        self.text(key, reader)
    }

    /// A string that must be there and parse.
    pub(super) fn required<T>(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let found = self.required_text(key, reader)?;
        self.parse(key, &found, reader)
    }

    /// A string that parses, where it is there.
    pub(super) fn parsed<T>(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let found = self.text(key, reader)?;
        self.parse(key, &found, reader)
    }

    fn parse<T>(&self, key: &str, found: &Found<String>, reader: &mut Reader<'_>) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match found.value.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                reader.mistake(Some(found.at.clone()), format!("`{}`: {error}", self.path(key)), None);
                None
            }
        }
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        reader: &mut Reader<'_>,
    ) -> Option<u64> {
        let value = self.take(key)?;
        let number = value.get_ref().as_integer().and_then(|integer| {
            let digits = integer.as_str().replace('_', "");
            u64::from_str_radix(&digits, integer.radix()).ok()
        });
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) | None => {
                let wanted = format!("a number from {} to {}", range.start(), range.end());
                self.wrong(key, value, &wanted, reader)
            }
        }
    }

    /// A list of numbers.
    pub(super) fn numbers(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        reader: &mut Reader<'_>,
    ) -> Vec<u64> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let number = |item: &Spanned<DeValue<'_>>| {
            let integer = item.get_ref().as_integer()?;
            let number = u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()?;
            range.contains(&number).then_some(number)
        };
        let numbers = value.get_ref().as_array().and_then(|items| items.iter().map(number).collect());
        numbers.unwrap_or_else(|| {
            let wanted = format!("a list of numbers from {} to {}", range.start(), range.end());
            let _: Option<()> = self.wrong(key, value, &wanted, reader);
            Vec::new()
        })
    }

    pub(super) fn boolean(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<bool> {
        let value = self.take(key)?;
        match value.get_ref().as_bool() {
            Some(boolean) => Some(boolean),
            None => self.wrong(key, value, "true or false", reader),
        }
    }

    /// A duration with its unit: `250ms`, `10s`, `5m`.
    pub(super) fn duration(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Option<Duration> {
        let found = self.text(key, reader)?;
        match humantime::parse_duration(&found.value) {
            Ok(duration) if !duration.is_zero() => Some(duration),
            Ok(_) => {
                reader.mistake(Some(found.at), format!("`{}` must not be zero", self.path(key)), None);
                None
            }
            Err(error) => {
                let hint = Some("write a number and a unit, such as `250ms`, `10s`, `5m`".to_owned());
                reader.mistake(Some(found.at), format!("`{}`: {error}", self.path(key)), hint);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Vec<Found<String>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            let _: Option<()> = self.wrong(key, value, "a list of strings", reader);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Found { value: text.to_owned(), at: item.span() }),
                None => {
                    let _: Option<()> = self.wrong(key, item, "a list of strings", reader);
                }
            }
        }
        texts
    }

    /// A table of strings, in the order of its keys.
    pub(super) fn pairs(&mut self, key: &'static str, reader: &mut Reader<'_>) -> Vec<(String, Found<String>)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            let _: Option<()> = self.wrong(key, value, "a table of strings", reader);
            return Vec::new();
        };
        let mut pairs = Vec::with_capacity(table.len());
        for (name, item) in table {
            match item.get_ref().as_str() {
                Some(text) => {
                    let found = Found { value: text.to_owned(), at: item.span() };
                    pairs.push((name.get_ref().to_string(), found));
                }
                None => {
                    let _: Option<()> = self.wrong(key, item, "a table of strings", reader);
                }
            }
        }
        pairs
    }

    /// Ends the reading: keys nobody asked for are mistakes.
    pub(super) fn finish(self, reader: &mut Reader<'_>) {
        let Some(table) = self.table else { return };
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !self.known.contains(name) {
                let hint = self.similar(name).map(|known| format!("did you mean `{known}`?"));
                reader.mistake(Some(key.span()), format!("`{}` is not known here", self.path(name)), hint);
            }
        }
    }

    fn similar(&self, name: &str) -> Option<&'static str> {
        let close = |known: &&'static str| {
            let (a, b) = (name.replace(['-', '_'], ""), known.replace(['-', '_'], ""));
            a == b || a.starts_with(&b) || b.starts_with(&a)
        };
        self.known.iter().copied().find(close)
    }

    fn take(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'t>>> {
        self.known.insert(key);
        self.table?.get(key)
    }

    fn wrong<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, reader: &mut Reader<'_>) -> Option<T> {
        let found = value.get_ref().type_str();
        reader.mistake(Some(value.span()), format!("`{}` is {found}, not {wanted}", self.path(key)), None);
        None
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
