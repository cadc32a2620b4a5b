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

/// A policy that takes more stack to read and evaluate than a thread may have: Cedar recurses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLarge {
    #[error("the policy is longer than {MOST_BYTES} bytes")]
    Bytes,
    #[error("the policy nests deeper than {DEEPEST} brackets")]
    Depth,
    #[error("the policy has more than {MOST_OPERATORS} operators and conditions")]
    Operators,
    #[error("the policy has more than {MOST_ATTRIBUTES} attributes and sets")]
    Attributes,
}

/// More is no policy that a person wrote.
const MOST_BYTES: usize = 64 * 1024;
/// Parsing 200 takes more than the 2 MiB of a thread.
const DEEPEST: usize = 32;
/// Evaluating a chain of 500 takes more than the 2 MiB of a thread.
const MOST_OPERATORS: usize = 128;
/// Parsing a chain of 3000 takes more than the 2 MiB of a thread.
const MOST_ATTRIBUTES: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    Comment,
    String,
    Escape,
}

/// Each letter with what it is part of; the quotes belong to their string.
fn states(text: &str) -> impl Iterator<Item = (usize, char, State)> {
    let mut letters = text.char_indices().peekable();
    let mut state = State::Code;
    std::iter::from_fn(move || {
        let (offset, letter) = letters.next()?;
        let next = letters.peek().map(|(_, next)| *next);
        let within = state;
        state = match (within, letter) {
            (State::Code, '/') if next == Some('/') => State::Comment,
            (State::Comment, '\n' | '\r') | (State::String, '"') => State::Code,
            (State::Code, '"') | (State::Escape, _) => State::String,
            (State::String, '\\') => State::Escape,
            (unchanged, _) => unchanged,
        };
        let part_of = match (within, state) {
            (State::Comment | State::Code, state) => state,
            (State::String | State::Escape, _) => State::String,
        };
        Some((offset, letter, part_of))
    })
}

/// The text with what `hidden` says turned to spaces, byte for byte.
fn without(text: &str, hidden: fn(State) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for (_, letter, state) in states(text) {
        if hidden(state) {
            shown.extend(std::iter::repeat_n(' ', letter.len_utf8()));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Refuses what Cedar could run out of stack on, before Cedar sees it.
pub(crate) fn check_size(policy: &str) -> Result<(), TooLarge> {
    if policy.len() > MOST_BYTES {
        return Err(TooLarge::Bytes);
    }
    let bare = without(policy, |state| state != State::Code);
    let (mut depth, mut operators, mut pairs, mut attributes) = (0_usize, 0, 0, 0);
    for letter in bare.chars() {
        match letter {
            '(' | '{' => depth += 1,
            '[' => {
                depth += 1;
                attributes += 1;
            }
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            '+' | '-' | '*' => operators += 1,
            '.' => attributes += 1,
            '&' | '|' => pairs += 1,
            _ => {}
        }
        if depth > DEEPEST {
            return Err(TooLarge::Depth);
        }
    }
    let words = bare.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    operators += pairs / 2 + words.filter(|word| matches!(*word, "if" | "when" | "unless")).count();
    if operators > MOST_OPERATORS {
        return Err(TooLarge::Operators);
    }
    if attributes > MOST_ATTRIBUTES { Err(TooLarge::Attributes) } else { Ok(()) }
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let code = without(text, |state| state == State::Comment);
        let ends = states(text).filter(|(_, letter, state)| *letter == ';' && *state == State::Code);
        let ends = ends.map(|(offset, _, _)| offset + 1).collect();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, code, ends, lines }
    }

    /// The policies, in order. A last one without its `;` is among them.
    pub(crate) fn statements(&self) -> Vec<Statement<'a>> {
        let ends = self.ends.iter().copied().chain([self.text.len()]);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(ends).filter_map(|(from, to)| self.statement(from, to)).collect()
    }

    fn statement(&self, from: usize, to: usize) -> Option<Statement<'a>> {
        let code = self.code.get(from..to)?;
        let start = from + (code.len() - code.trim_start().len());
        let end = from + code.trim_end().len();
        if start >= end {
            return None;
        }
        Some(Statement { text: self.text.get(start..end)?, start })
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
        Position { line, column: column + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<&str> {
        Source::new(file).statements().into_iter().map(|statement| statement.text).collect()
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
        for (offset, line, column) in
            [(0, 1, 1), (1, 1, 2), (3, 2, 1), (5, 2, 3), (12, 2, 8), (8, 2, 5), (15, 3, 1), (99, 3, 1)]
        {
            assert_eq!(source.position(offset), Position { line, column }, "{offset}");
        }
    }

    #[test]
    fn a_policy_that_would_cost_too_much_stack_is_refused() {
        let policy = |condition: &str| format!("permit(principal, action, resource) when {{ {condition} }};");
        for (condition, expected) in [
            (format!("{}true{}", "(".repeat(31), ")".repeat(31)), Ok(())),
            (format!("{}true{}", "(".repeat(32), ")".repeat(32)), Err(TooLarge::Depth)),
            (format!("{}1{}", "{a:[".repeat(20), "]}".repeat(20)), Err(TooLarge::Depth)),
            (format!("true{}", " && true".repeat(127)), Ok(())),
            (format!("true{}", " && true".repeat(128)), Err(TooLarge::Operators)),
            (format!("{}true", "if true then true else ".repeat(300)), Err(TooLarge::Operators)),
            (format!("1{} > 2", "+1".repeat(300)), Err(TooLarge::Operators)),
            (format!("context{}", ".a".repeat(513)), Err(TooLarge::Attributes)),
            (format!("context{}", "[\"a\"]".repeat(513)), Err(TooLarge::Attributes)),
            (format!("\"{}\" == \"\"", "(.[".repeat(300)), Ok(())),
            (format!("[{}].contains(\"x\")", "\"spiffe://a.b/c\",".repeat(3000)), Ok(())),
            (format!("// {}\ntrue", "(".repeat(300)), Ok(())),
            (format!("\"{}\" == \"\"", "x".repeat(MOST_BYTES)), Err(TooLarge::Bytes)),
        ] {
            assert_eq!(check_size(&policy(&condition)), expected, "{}", condition.get(..40).unwrap_or(&condition));
        }
        let conditions = format!("permit(principal, action, resource) {};", "when { true }".repeat(129));
        assert_eq!(check_size(&conditions), Err(TooLarge::Operators));
    }

    #[test]
    fn a_token_in_a_comment_is_not_found() {
        let source = Source::new("// \"x\"\na // \"x\"\n \"x\"; \"y\";");
        let statements = source.statements();
        assert_eq!(source.find(&statements[0], "\"x\""), Some(17));
        assert_eq!(source.find(&statements[0], "\"y\""), None);
        assert_eq!(source.find(&statements[1], "\"y\""), Some(22));
    }
}
