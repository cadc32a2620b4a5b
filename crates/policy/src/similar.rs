//! Which known names a mistyped one may have meant.

/// At most this many names are proposed.
const PROPOSALS: usize = 3;
/// Names beyond this many characters are not compared: nobody types them.
const LONGEST: usize = 256;

/// The names of `known` that are near `name`, nearest first.
pub(crate) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    let mut near: Vec<_> = known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    near.sort();
    near.into_iter().take(PROPOSALS).map(|(_, candidate)| candidate).collect()
}

/// Names in backticks, joined for a sentence: "`a`, `b` or `c`".
pub(crate) fn either(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The first `most` names in backticks, joined by commas, and how many more there are.
pub(crate) fn listed<T: std::fmt::Display>(names: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut names = names.into_iter();
    let quoted: Vec<_> = names.by_ref().take(most).map(|name| format!("`{name}`")).collect();
    match names.count() {
        0 => quoted.join(", "),
        more => format!("{} and {more} more", quoted.join(", ")),
    }
}

/// How many letters must be changed, added, taken away or swapped with their neighbour (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut above_letter = None;
    for (row, letter) in left.chars().take(LONGEST).enumerate() {
        let mut current = Vec::with_capacity(above.len());
        current.push(row + 1);
        let mut previous = None;
        for (column, other) in right.iter().copied().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&above, column) + usize::from(letter != other))
                .min(at(&above, column + 1) + 1)
                .min(at(&current, column) + 1);
            if above_letter == Some(other) && previous == Some(letter) {
                least = least.min(at(&before, column.wrapping_sub(1)) + 1);
            }
            current.push(least);
            previous = Some(other);
        }
        before = std::mem::replace(&mut above, current);
        above_letter = Some(letter);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_and_swaps() {
        for (left, right, expected) in [
            ("", "", 0),
            ("get", "", 3),
            ("", "get", 3),
            ("get", "get", 0),
            ("gett", "get", 1),
            ("gte", "get", 1),
            ("set", "get", 1),
            ("get-invoise", "get-invoice", 1),
            ("kitten", "sitting", 3),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn the_nearest_names_come_first_and_far_ones_not_at_all() {
        let known = ["get", "get-all", "delete", "list", "gets"];
        assert_eq!(similar("gett", known), ["get", "gets"]);
        assert_eq!(similar("lits", known), ["list"]);
        assert!(similar("frobnicate", known).is_empty());
    }

    #[test]
    fn proposals_read_as_a_sentence() {
        assert_eq!(either(&[]), "");
        assert_eq!(either(&["a"]), "`a`");
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(listed(["a", "b", "c"], 3), "`a`, `b`, `c`");
        assert_eq!(listed(["a", "b", "c"], 1), "`a` and 2 more");
    }
}
