//! Strict parsing of SPIFFE IDs and trust domain names.
//!
//! The `spiffe` crate folds upper case in the scheme and the trust domain, accepts an ID where a trust domain name is
//! asked for, and does not bound the length of what it parses. Here an ID is accepted only if it is byte for byte what
//! it prints as (SPIFFE-ID §2.1 to §2.4): comparing bytes and comparing IDs is then the same thing.

use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
use thiserror::Error;

/// SPIFFE-ID §2.3: IDs of up to 2048 bytes are supported, longer ones are not generated; we do not accept them either.
const MAX_ID_BYTES: usize = 2048;

/// Why a text is no SPIFFE ID, or no trust domain name.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum InvalidSpiffeId {
    /// It is longer than SPIFFE-ID §2.3 allows.
    #[error("SPIFFE ID of {bytes} bytes is longer than {MAX_ID_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It breaks a rule of SPIFFE-ID §2.
    #[error("`{text}` is not a SPIFFE ID: {reason}")]
    Malformed {
        /// What was given.
        text: String,
        /// The rule it breaks.
        reason: SpiffeIdError,
    },
    /// It would be read as another ID than the one written, for example because of upper case.
    #[error("`{text}` is not a SPIFFE ID: write it as `{canonical}`")]
    NotCanonical {
        /// What was given.
        text: String,
        /// How it must be written.
        canonical: String,
    },
    /// A trust domain name was asked for.
    #[error("`{text}` is not a trust domain name: lower-case letters, digits, `.`, `-` and `_`, without a scheme")]
    NotTrustDomain {
        /// What was given.
        text: String,
    },
}

/// Parses a SPIFFE ID that is written exactly as it prints.
///
/// The ID of a trust domain (`spiffe://TD`, no path) is a SPIFFE ID too.
///
/// # Errors
/// [`InvalidSpiffeId`] names the rule that is broken.
pub fn parse_spiffe_id(text: &str) -> Result<SpiffeId, InvalidSpiffeId> {
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidSpiffeId::TooLong { bytes: text.len() });
    }
    let id = SpiffeId::new(text).map_err(|reason| InvalidSpiffeId::Malformed { text: shown(text), reason })?;
    let canonical = id.to_string();
    if canonical != text {
        return Err(InvalidSpiffeId::NotCanonical { text: shown(text), canonical });
    }
    Ok(id)
}

/// Parses a trust domain's bare name, such as `example.org`.
///
/// # Errors
/// [`InvalidSpiffeId`] for anything else, an ID included.
pub fn parse_trust_domain(text: &str) -> Result<TrustDomain, InvalidSpiffeId> {
    TrustDomain::new(text)
        .ok()
        .filter(|trust_domain| trust_domain.as_str() == text)
        .ok_or_else(|| InvalidSpiffeId::NotTrustDomain { text: shown(text) })
}

/// A text of a stranger as it may stand in a log: without control characters, and not too long.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(256).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SPIFFE-ID §2 to §2.4.
    #[test]
    fn what_is_not_written_as_the_standard_says_is_refused() {
        let refused = [
            // Scheme, query, fragment.
            "",
            "td/a",
            "http://td/a",
            "spiffe:/td/a",
            "spiffe:td/a",
            "spiffe:///a",
            "spiffe://",
            "spiffe://td/a?x",
            "spiffe://td?x",
            "spiffe://td/a#f",
            " spiffe://td/a",
            "spiffe://td/a\n",
            // User information and port.
            "spiffe://u@td/a",
            "spiffe://td:443/a",
            "spiffe://td:/a",
            // The trust domain's characters.
            "spiffe://EXAMPLE.org/a",
            "spiffe://ex%41mple.org/a",
            "spiffe://exämple.org/a",
            "spiffe://td!/a",
            "spiffe://[::1]/a",
            // The path: percent-encoding, empty and dot segments, the trailing slash.
            "spiffe://td/a%2Fb",
            "spiffe://td/%61",
            "spiffe://td//a",
            "spiffe://td/a//b",
            "spiffe://td/./a",
            "spiffe://td/a/..",
            "spiffe://td/",
            "spiffe://td/a/",
            "spiffe://td/a b",
            "spiffe://td/ä",
            "spiffe://td/a\0b",
            "spiffe://td/a\\b",
            // Case is not folded (§2.4 read as go-spiffe reads it).
            "SPIFFE://td/a",
            "Spiffe://td/a",
            "spiffe://Td/a",
        ];
        for text in refused {
            assert!(parse_spiffe_id(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn what_is_written_as_the_standard_says_is_accepted_unchanged() {
        let accepted = [
            "spiffe://td",
            "spiffe://a_b-c.d/x",
            "spiffe://10.0.0.1/a",
            "spiffe://not_a_dns_name/a",
            "spiffe://td/A.b-c_9/...",
        ];
        for text in accepted {
            assert_eq!(parse_spiffe_id(text).unwrap().to_string(), text);
        }
        assert_ne!(parse_spiffe_id("spiffe://td/A"), parse_spiffe_id("spiffe://td/a"));
    }

    #[test]
    fn an_id_has_at_most_2048_bytes_and_a_trust_domain_255() {
        let longest = format!("spiffe://td/{}", "a".repeat(2048 - 12));
        assert_eq!(longest.len(), 2048);
        assert_eq!(parse_spiffe_id(&longest).unwrap().to_string(), longest);
        assert_eq!(parse_spiffe_id(&format!("{longest}a")), Err(InvalidSpiffeId::TooLong { bytes: 2049 }));

        assert!(parse_trust_domain(&"a".repeat(255)).is_ok());
        assert!(parse_trust_domain(&"a".repeat(256)).is_err());
        assert!(parse_spiffe_id(&format!("spiffe://{}/a", "a".repeat(256))).is_err());
    }

    #[test]
    fn upper_case_is_answered_with_the_right_spelling() {
        let error = parse_spiffe_id("spiffe://Example.org/a").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`spiffe://Example.org/a` is not a SPIFFE ID: write it as `spiffe://example.org/a`"
        );
    }

    /// A peer that is not authenticated yet writes this text.
    #[test]
    fn an_error_repeats_a_text_without_its_control_characters_and_not_whole() {
        let text = format!("spiffe://td/a\n\u{1b}[31m{}", "b".repeat(1500));
        let error = parse_spiffe_id(&text).unwrap_err().to_string();
        assert!(error.starts_with(r"`spiffe://td/a\n\u{1b}[31mbbb"), "{error}");
        assert!(error.len() < 500 && !error.contains(char::is_control));
    }

    #[test]
    fn a_trust_domain_is_given_by_its_bare_name() {
        for text in ["", "spiffe://td", "td/a", "TD", "td:1", "u@td", "tä", "[::1]"] {
            assert!(parse_trust_domain(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(parse_trust_domain("a_b-c.d").unwrap().as_str(), "a_b-c.d");
    }

    #[test]
    fn a_segment_holds_the_standards_characters_only() {
        for byte in 0..=u8::MAX {
            let text = format!("spiffe://td/a{}b", char::from(byte));
            let allowed = byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
            assert_eq!(parse_spiffe_id(&text).is_ok(), allowed, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_trust_domain_is_accepted_if_and_only_if_its_characters_are(text in "[a-zA-Z0-9._%:/@ä-]{1,12}") {
            let allowed = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
            prop_assert_eq!(parse_trust_domain(&text).is_ok(), allowed);
        }

        #[test]
        fn what_is_accepted_prints_as_it_was_written(text in "(spiffe|SPIFFE)://[a-zA-B.]{0,3}(/[aA.%]{0,3}){0,3}") {
            if let Ok(id) = parse_spiffe_id(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
