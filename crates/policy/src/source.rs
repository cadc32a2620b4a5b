//! A policy file as text: where its statements are, and which line an offset is on.
//!
//! Cedar gives up on a whole file at the first policy it cannot read. Read one by one, every policy's mistakes are found. A
//! policy ends at a `;` outside strings and comments, and nowhere else; each piece is still read by Cedar as exactly one policy.

/// A file's text with what is needed to talk about it.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    text: &'a str,
    /// The text with every comment turned to spaces, byte for byte.
    code: String,
    /// The offsets just behind each `;`.
    ends: Vec<usize>,
    /// The offset of each line.
    lines: Vec<usize>,
}

/// One policy's text within its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// From its first token to its `;`, comments included.
    pub(crate) text: &'a str,
    /// Where in the file it begins, in bytes.
    pub(crate) start: usize,
}

/// Both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    Comment,
    String,
    Escape,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut code = String::with_capacity(text.len());
        let mut ends = Vec::new();
        let mut state = State::Code;
        let mut letters = text.char_indices().peekable();
        while let Some((offset, letter)) = letters.next() {
            let next = letters.peek().map(|(_, next)| *next);
            state = match (state, letter) {
                (State::Code, '/') if next == Some('/') => State::Comment,
                (State::Code, '"') => State::String,
                (State::Code, ';') => {
                    ends.push(offset + 1);
                    State::Code
                }
                (State::Comment, '\n' | '\r') | (State::String, '"') => State::Code,
                (State::String, '\\') => State::Escape,
                (State::Escape, _) => State::String,
                (unchanged, _) => unchanged,
            };
            match state {
                State::Comment => code.extend(std::iter::repeat_n(' ', letter.len_utf8())),
                State::Code | State::String | State::Escape => code.push(letter),
            }
        }
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            text,
            code,
            ends,
            lines,
        }
    }

    /// The policies, in order. A last one without its `;` is among them.
    pub(crate) fn statements(&self) -> Vec<Statement<'a>> {
        let ends = self.ends.iter().copied().chain([self.text.len()]);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(ends)
            .filter_map(|(from, to)| self.statement(from, to))
            .collect()
    }

    fn statement(&self, from: usize, to: usize) -> Option<Statement<'a>> {
        let code = self.code.get(from..to)?;
        let start = from + (code.len() - code.trim_start().len());
        let end = from + code.trim_end().len();
        if start >= end {
            return None;
        }
        Some(Statement {
            text: self.text.get(start..end)?,
            start,
        })
    }

    /// Where `token` first stands in a statement, outside comments.
    pub(crate) fn find(&self, statement: &Statement<'_>, token: &str) -> Option<usize> {
        let code = self.code.get(statement.start..statement.start + statement.text.len())?;
        code.find(token).map(|at| statement.start + at)
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let end = self.text.floor_char_boundary(offset.max(start));
        let column = self.text.get(start..end).map_or(0, |before| before.chars().count());
        Position {
            line,
            column: column + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<&str> {
        Source::new(file)
            .statements()
            .into_iter()
            .map(|statement| statement.text)
            .collect()
    }

    #[test]
    fn a_statement_ends_at_a_semicolon_outside_strings_and_comments() {
        assert_eq!(texts(""), [""; 0]);
        assert_eq!(texts("  // nothing; at all\n\n"), [""; 0]);
        assert_eq!(texts("a;b;"), ["a;", "b;"]);
        assert_eq!(texts("a \";\" ;  // c;\n b // d;\n e; "), ["a \";\" ;", "b // d;\n e;"]);
        assert_eq!(texts(r#"a "\";" ; b "\\"; c"#), [r#"a "\";" ;"#, r#"b "\\";"#, "c"]);
        assert_eq!(texts("a // x\r b; c"), ["a // x\r b;", "c"]);
        assert_eq!(texts("a \"open; // b;"), ["a \"open; // b;"]);
        assert_eq!(texts("a / b; ;"), ["a / b;", ";"]);
        assert_eq!(texts("// größer;\na;"), ["a;"]);
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("ab\n  größe x\n");
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 2),
            (3, 2, 1),
            (5, 2, 3),
            (12, 2, 8),
            (8, 2, 5),
            (15, 3, 1),
            (99, 3, 1),
        ] {
            assert_eq!(source.position(offset), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn a_token_in_a_comment_is_not_found() {
        let source = Source::new("// \"x\"\na // \"x\"\n \"x\"; \"y\";");
        let statements = source.statements();
        assert_eq!(source.find(&statements[0], "\"x\""), Some(18));
        assert_eq!(source.find(&statements[0], "\"y\""), None);
        assert_eq!(source.find(&statements[1], "\"y\""), Some(23));
    }
}
