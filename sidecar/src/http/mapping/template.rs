//! Text with at most one parameter in it: `{id}`, `Bearer {token}`, `{{literally}}`.

/// A text with a place for one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) prefix: String,
    /// The parameter as written, `page.limit`; `None` for a constant.
    pub(super) parameter: Option<String>,
    pub(super) suffix: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What is wrong with the braces.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut template = Self { prefix: String::new(), parameter: None, suffix: String::new() };
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '{' | '}' if letters.peek() == Some(&letter) => {
                    letters.next();
                    template.constant().push(letter);
                }
                '{' => {
                    if template.parameter.is_some() {
                        return Err("it holds two parameters, but one value is filled by one parameter");
                    }
                    let mut name = String::new();
                    loop {
                        match letters.next() {
                            Some('}') => break,
                            Some('{') | None => return Err("a `{` has no `}`"),
                            Some(letter) => name.push(letter),
                        }
                    }
                    template.parameter = Some(name);
                }
                '}' => return Err("a `}` has no `{`"),
                letter => template.constant().push(letter),
            }
        }
        Ok(template)
    }

    fn constant(&mut self) -> &mut String {
        if self.parameter.is_some() { &mut self.suffix } else { &mut self.prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(prefix: &str, parameter: Option<&str>, suffix: &str) -> Template {
        Template { prefix: prefix.to_owned(), parameter: parameter.map(str::to_owned), suffix: suffix.to_owned() }
    }

    #[test]
    fn a_template_is_a_parameter_between_two_constants() {
        assert_eq!(Template::parse("{id}"), Ok(template("", Some("id"), "")));
        assert_eq!(Template::parse("Bearer {a.token}!"), Ok(template("Bearer ", Some("a.token"), "!")));
        assert_eq!(Template::parse("full"), Ok(template("full", None, "")));
        assert_eq!(Template::parse("{{{id}}}"), Ok(template("{", Some("id"), "}")));
    }

    #[test]
    fn braces_that_do_not_match_are_refused() {
        for text in ["{id", "id}", "{a}{b}", "{a{b}}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
