//! `application/x-www-form-urlencoded`: query strings and form bodies (WHATWG URL §5.1).

use percent_encoding::percent_decode;

/// The decoded pairs in order, or `None` where one is not UTF-8.
pub(crate) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn pair(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    Some((decoded(name)?, decoded(value)?))
}

fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::pairs;

    #[test]
    fn names_and_values_are_decoded() {
        let expected = vec![
            ("customer".to_owned(), "acme & co".to_owned()),
            ("x".to_owned(), String::new()),
            ("y".to_owned(), "a=b".to_owned()),
        ];
        assert_eq!(pairs("customer=acme+%26%20co&x&&y=a=b"), Some(expected));
    }

    #[test]
    fn what_is_not_utf_8_is_no_pair() {
        assert_eq!(pairs("a=%ff"), None);
    }
}
