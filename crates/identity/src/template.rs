//! SPIFFE IDs whose path is made of what was attested: `spiffe://acme.test/svc/{unix:uid}/{systemd:id}`.
//!
//! A path is filled segment by segment, and a value must be a legal segment as it stands. Nothing is cut, folded, decoded or normalised, so that
//! no value can reach into another segment, and no two values give one ID (CVE-2021-27099 was a path made of a tag, normalised afterwards).

use std::fmt;
use std::str::FromStr;

use spiffe::{SpiffeId, TrustDomain};
use thiserror::Error;

use crate::{InvalidSpiffeId, is_reserved, parse_spiffe_id, parse_trust_domain};

/// Bytes of a value.
const MAX_VALUE_BYTES: usize = 128;

/// What a variable stands for: the value of the selector of that name. A workload has one, and does not choose it: whoever can make executables or
/// containers at will could make identities at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// `unix:uid`: the user, as a number.
    UnixUid,
    /// `unix:gid`: its group, as a number.
    UnixGid,
    /// `systemd:id`: the unit.
    SystemdId,
}

impl Attribute {
    const ALL: [Self; 3] = [Self::UnixUid, Self::UnixGid, Self::SystemdId];

    /// The selector's name, without its value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnixUid => "unix:uid",
            Self::UnixGid => "unix:gid",
            Self::SystemdId => "systemd:id",
        }
    }

    /// The selector that says `value` of it.
    #[must_use]
    pub fn selector(self, value: &str) -> String {
        format!("{}:{value}", self.name())
    }

    /// The value that `selector` says of it.
    #[must_use]
    pub fn value_in(self, selector: &str) -> Option<&str> {
        selector.strip_prefix(self.name())?.strip_prefix(':')
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Variable(Attribute),
}

/// A SPIFFE ID some of whose segments are variables. The first is none, so that whatever is filled in, the ID stays below what an operator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdTemplate {
    trust_domain: TrustDomain,
    segments: Vec<Segment>,
}

/// Not a template.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidIdTemplate {
    /// What is left with every variable filled in is no SPIFFE ID.
    #[error(transparent)]
    Id(#[from] InvalidSpiffeId),
    /// It is written wrong.
    #[error(
        "`{0}` is not a template: a segment is text or one of {{unix:uid}}, {{unix:gid}}, {{systemd:id}}, each at most once"
    )]
    Malformed(String),
    /// Its first segment is a variable.
    #[error("the first segment of a template is text, so that what is filled in stays below it")]
    Rootless,
    /// It lies where no entry may.
    #[error("IDs under `/portcullis/` belong to the broker and its nodes")]
    Reserved,
}

/// A value does not fit into an ID.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum UnfitValue {
    /// It is no segment as it stands.
    #[error(
        "`{value}` of `{attribute}` is not a path segment: 1 to {MAX_VALUE_BYTES} letters, digits, `.`, `_` and `-`, and neither `.` nor `..`"
    )]
    Segment {
        /// Of what.
        attribute: &'static str,
        /// The value, as text that no log is forged with.
        value: String,
    },
    /// There are more or fewer values than variables.
    #[error("{given} values for {wanted} variables")]
    Number {
        /// How many came.
        given: usize,
        /// How many there have to be.
        wanted: usize,
    },
    /// The whole is too long.
    #[error(transparent)]
    Id(#[from] InvalidSpiffeId),
}

impl IdTemplate {
    /// Whether `text` is meant to be a template rather than an ID: IDs have no braces.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(['{', '}'])
    }

    /// Whose IDs it makes.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What is filled in, in the order of the path.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Variable(attribute) => Some(*attribute),
        })
    }

    /// The ID with `values` in the place of [`Self::attributes`], in their order.
    ///
    /// # Errors
    /// When a value is not a segment as it stands.
    pub fn fill<T: AsRef<str>>(&self, values: &[T]) -> Result<SpiffeId, UnfitValue> {
        let wanted = self.attributes().count();
        if values.len() != wanted {
            return Err(UnfitValue::Number { given: values.len(), wanted });
        }
        let mut values = values.iter().map(AsRef::as_ref);
        let mut text = format!("spiffe://{}", self.trust_domain.as_str());
        for segment in &self.segments {
            text.push('/');
            match segment {
                Segment::Literal(literal) => text.push_str(literal),
                Segment::Variable(attribute) => text.push_str(checked(*attribute, values.next().unwrap_or_default())?),
            }
        }
        Ok(parse_spiffe_id(&text)?)
    }

    /// The ID that the workload of whom `selectors` are known earns, and the values in it; nothing where one of them is not known.
    ///
    /// # Errors
    /// When a value is not a segment as it stands.
    pub fn fill_from<'s>(
        &self,
        selectors: &(impl Iterator<Item = &'s str> + Clone),
    ) -> Result<Option<(SpiffeId, Vec<String>)>, UnfitValue> {
        let value = |attribute: Attribute| selectors.clone().find_map(|selector| attribute.value_in(selector));
        let Some(values) = self.attributes().map(value).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let id = self.fill(&values)?;
        Ok(Some((id, values.into_iter().map(str::to_owned).collect())))
    }
}

fn checked(attribute: Attribute, value: &str) -> Result<&str, UnfitValue> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_segment = (1..=MAX_VALUE_BYTES).contains(&value.len()) && value.bytes().all(legal);
    if is_segment && !matches!(value, "." | "..") {
        return Ok(value);
    }
    let shown = value.chars().take(80).flat_map(char::escape_debug).collect();
    Err(UnfitValue::Segment { attribute: attribute.name(), value: shown })
}

impl FromStr for IdTemplate {
    type Err = InvalidIdTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidIdTemplate> {
        let malformed = || InvalidIdTemplate::Malformed(text.chars().take(200).flat_map(char::escape_debug).collect());
        let rest = text.strip_prefix("spiffe://").ok_or_else(malformed)?;
        let (trust_domain, path) = rest.split_once('/').ok_or_else(malformed)?;
        let segments =
            path.split('/').map(|text| segment(text).ok_or_else(malformed)).collect::<Result<Vec<_>, _>>()?;
        let template = Self { trust_domain: parse_trust_domain(trust_domain)?, segments };
        let mut attributes: Vec<_> = template.attributes().collect();
        let variables = attributes.len();
        attributes.sort();
        attributes.dedup();
        if variables == 0 || attributes.len() != variables {
            return Err(malformed());
        }
        if !matches!(template.segments.first(), Some(Segment::Literal(_))) {
            return Err(InvalidIdTemplate::Rootless);
        }
        // The text around the variables obeys every rule of an ID.
        let filled = template.fill(&vec!["x"; variables]).map_err(|error| match error {
            UnfitValue::Id(error) => InvalidIdTemplate::Id(error),
            UnfitValue::Segment { .. } | UnfitValue::Number { .. } => malformed(),
        })?;
        if is_reserved(&filled) { Err(InvalidIdTemplate::Reserved) } else { Ok(template) }
    }
}

/// A brace makes a variable of the whole segment, or nothing.
fn segment(text: &str) -> Option<Segment> {
    if !IdTemplate::is_meant(text) {
        return Some(Segment::Literal(text.to_owned()));
    }
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    Attribute::ALL.into_iter().find(|attribute| attribute.name() == name).map(Segment::Variable)
}

impl fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain.as_str())?;
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Literal(literal) => write!(f, "/{literal}"),
            Segment::Variable(attribute) => write!(f, "/{{{}}}", attribute.name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: &str = "spiffe://a.test/svc/{unix:uid}/{systemd:id}";

    fn template(text: &str) -> IdTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn a_template_prints_as_it_is_written() {
        for text in [UNIT, "spiffe://a.test/x/{unix:gid}", "spiffe://a.test/b/{systemd:id}/c"] {
            assert_eq!(template(text).to_string(), text);
        }
        for text in [
            "",
            "spiffe://a.test",
            "spiffe://a.test/x",
            "spiffe://a.test/x/{unix:path}",
            "spiffe://a.test/x/{unix:uid",
            "spiffe://a.test/x/unix:uid}",
            "spiffe://a.test/x/u{unix:uid}",
            "spiffe://a.test/x/{unix:uid}u",
            "spiffe://a.test/x/{{unix:uid}}",
            "spiffe://a.test/x/{unix:uid}{unix:gid}",
            "spiffe://a.test/x/{unix:uid}/{unix:uid}",
            "spiffe://a.test/x/{docker:id}",
            "spiffe://a.test/x/{unix:sha256}",
            "https://a.test/x/{unix:uid}",
        ] {
            assert!(matches!(text.parse::<IdTemplate>(), Err(InvalidIdTemplate::Malformed(_))), "{text}");
        }
        for text in
            ["spiffe://a.test/x//{unix:uid}", "spiffe://a.test/x/../{unix:uid}", "spiffe://a.test/%2f/{unix:uid}"]
        {
            assert!(matches!(text.parse::<IdTemplate>(), Err(InvalidIdTemplate::Id(_))), "{text}");
        }
        let parsed = |text: &str| text.parse::<IdTemplate>().unwrap_err();
        assert!(matches!(parsed("spiffe://A.test/x/{unix:uid}"), InvalidIdTemplate::Id(_)));
        assert_eq!(parsed("spiffe://a.test/{unix:uid}/x"), InvalidIdTemplate::Rootless);
        assert_eq!(parsed("spiffe://a.test/portcullis/{unix:uid}"), InvalidIdTemplate::Reserved);
    }

    #[test]
    fn a_value_is_a_segment_as_it_stands_or_the_template_does_not_apply() {
        let unit = template(UNIT);
        assert_eq!(unit.fill(&["999", "redis.service"]).unwrap().to_string(), "spiffe://a.test/svc/999/redis.service");
        for value in [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "../x",
            "a%2fb",
            "%2e%2e",
            "a b",
            "ä",
            "a\0",
            "{unix:uid}",
            "redis@1.service",
            &"a".repeat(129),
        ] {
            assert!(matches!(unit.fill(&["999", value]), Err(UnfitValue::Segment { .. })), "{value:?}");
        }
        assert!(matches!(unit.fill(&["999"]), Err(UnfitValue::Number { .. })));
        assert!(matches!(unit.fill(&["1", "2", "3"]), Err(UnfitValue::Number { .. })));
    }

    #[test]
    fn values_come_from_the_selectors_of_their_name() {
        let unit = template(UNIT);
        let known = ["unix:gid:7", "unix:uid:999", "systemd:id:redis.service"];
        let (id, values) = unit.fill_from(&known.into_iter()).unwrap().unwrap();
        assert_eq!((id.path(), values), ("/svc/999/redis.service", vec!["999".to_owned(), "redis.service".to_owned()]));
        assert_eq!(unit.fill_from(&["unix:uid:999", "systemd:idx:y"].into_iter()).unwrap(), None);
        assert!(unit.fill_from(&["unix:uid:9", "systemd:id:../../admin"].into_iter()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_filled_in_changes_its_own_segment_alone(uid in ".{0,140}", unit in ".{0,140}") {
            if let Ok(id) = template(UNIT).fill(&[&uid, &unit]) {
                prop_assert_eq!(id.path().split('/').collect::<Vec<_>>(), vec!["", "svc", uid.as_str(), unit.as_str()]);
                prop_assert!(!is_reserved(&id));
            }
        }
    }
}
