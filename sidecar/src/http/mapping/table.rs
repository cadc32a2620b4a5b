//! A TOML table read key by key; what nobody asked for is a mistake at the end.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Located, Problems};

/// Reads the keys of one table.
pub(super) struct TableReader<'t, 'p> {
    table: &'t DeTable<'t>,
    known: Vec<&'static str>,
    pub(super) problems: &'p mut Problems,
}

impl<'t, 'p> TableReader<'t, 'p> {
    pub(super) fn new(table: &'t DeTable<'t>, problems: &'p mut Problems) -> Self {
        Self { table, known: Vec::new(), problems }
    }

    /// The value of a key, whatever it is.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// The value of a key that must be a string.
    pub(super) fn string(&mut self, key: &'static str) -> Option<Located<String>> {
        let value = self.take(key)?;
        self.expect_string(key, value)
    }

    /// The value of a key that must be one of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<Located<T>> {
        let Located { value, line } = self.string(key)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
            return Some(Located { value: *meaning, line });
        }
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = format!("one of {}", words.join(", "));
        self.problems.report_with_hint(line, format!("`{key}` cannot be `{value}`"), hint);
        None
    }

    /// The strings of a list; nothing where the key is absent.
    pub(super) fn string_list(&mut self, key: &'static str) -> Vec<Located<String>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(elements) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings");
            return Vec::new();
        };
        elements.iter().filter_map(|element| self.expect_string(key, element)).collect()
    }

    /// The entries of a table of strings, in the order of the file.
    pub(super) fn strings(&mut self, key: &'static str) -> Vec<(Located<String>, Located<String>)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table of strings");
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries
            .into_iter()
            .filter_map(|(name, value)| {
                let line = self.problems.line(&name.span());
                let name = Located { value: name.get_ref().clone().into_owned(), line };
                let value = self.expect_string(&name.value, value)?;
                Some((name, value))
            })
            .collect()
    }

    /// The tables of a list of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(&'t DeTable<'t>, usize)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(elements) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of tables");
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(elements.len());
        for element in elements.iter() {
            match element.get_ref().as_table() {
                Some(table) => tables.push((table, self.problems.line(&first_line(element, table)))),
                None => self.wrong_type(key, element, "a table"),
            }
        }
        tables
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        for name in self.table.keys() {
            let key = name.get_ref().as_ref();
            if !self.known.contains(&key) {
                let line = self.problems.line(&name.span());
                let hint = format!("known keys: {}", self.known.join(", "));
                self.problems.report_with_hint(line, format!("unknown key `{key}`"), hint);
            }
        }
    }

    fn expect_string(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Located<String>> {
        let line = self.problems.line(&value.span());
        match value.get_ref().as_str() {
            Some(text) => Some(Located { value: text.to_owned(), line }),
            None => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let line = self.problems.line(&value.span());
        self.problems.report(line, format!("`{key}` must be {expected}, found {}", value.get_ref().type_str()));
    }
}

/// Where a table begins: at its header, or at its first key where a `[[header]]` has no place of its own.
fn first_line(element: &Spanned<DeValue<'_>>, table: &DeTable<'_>) -> Range<usize> {
    let span = element.span();
    if span.is_empty() {
        return table.keys().map(Spanned::span).min_by_key(|key| key.start).unwrap_or(span);
    }
    span
}
