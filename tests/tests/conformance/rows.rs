//! The requirements that a SPIFFE implementation can be held to, in our words, and what shows that each is met.
//!
//! Rows 1 to 14 are of SPIFFE-ID, to 34 of X509-SVID, to 50 of JWT-SVID, to 65 of WIT-SVID, to 77 of Trust Domain and Bundle, to 101 of
//! Federation, to 117 of Workload Endpoint, to 142 of Workload API; the last of Broker Endpoint and Broker API, which are incubating.

/// What shows that a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A check against any socket, by its name.
    Check(&'static str),
    /// A test elsewhere: its file and its name.
    Test(&'static str, &'static str),
    /// Nothing, for this reason.
    Not(&'static str),
}

/// A requirement.
pub(crate) struct Row {
    pub(crate) number: u16,
    pub(crate) level: &'static str,
    /// Document and section.
    pub(crate) section: &'static str,
    pub(crate) requirement: &'static str,
    pub(crate) shown: &'static [Shown],
}

use Shown::{Check, Not, Test};

const ID: &str = "crates/identity/src/id.rs";
const LEAF: &str = "crates/identity/src/leaf.rs";
const CHAIN: &str = "crates/identity/src/verify/chain.rs";
const ROOTS: &str = "crates/identity/src/bundle.rs";
const TOKENS: &str = "crates/identity/src/jwt/tests.rs";
const DOCUMENT: &str = "crates/identity/src/document/tests.rs";
const RENEWAL: &str = "crates/identity/src/renewal.rs";
const CA: &str = "broker/src/authority/tests.rs";
const TERMS: &str = "broker/src/registry/terms.rs";
const TTL: &str = "broker/src/ttl.rs";
const SCHEDULE: &str = "broker/src/federation/schedule.rs";
const ENDPOINT: &str = "broker/src/registry/foreign/endpoint.rs";
const FOREIGN: &str = "broker/src/registry/foreign/tests.rs";
const FEDERATION: &str = "broker/tests/broker/federation.rs";
const SUCCESSION: &str = "broker/tests/broker/authorities.rs";
const SIGN: &str = "broker/tests/broker/sign.rs";
const API: &str = "sidecar/src/workload/api.rs";
const SOCKET: &str = "sidecar/src/workload/tests.rs";
const SNAPSHOT: &str = "sidecar/src/workload/snapshot.rs";
const ATTEST: &str = "sidecar/src/workload/attest/tests.rs";
const CGROUP: &str = "sidecar/src/workload/attest/cgroup.rs";
const QUIC: &str = "crates/transport/tests/quic/handshakes.rs";
const TLS: &str = "tests/tests/e2e/handshake.rs";
const PYTHON: &str = "tests/tests/e2e/identities.rs";
const TIDY: &str = "tests/tests/tidy.rs";
const OURS: &str = "tests/tests/conformance/ours.rs";
const CLIENTS: &str = "tests/tests/conformance/clients.rs";
const REGRESSIONS: &str = "tests/tests/conformance/regressions.rs";
const SOURCE: &str = "sidecar/client/src/workload_source.rs";
const ELSEWHERE: &str = "tests/tests/e2e/elsewhere.rs";
const ON_A_SOCKET: Shown = Test(ELSEWHERE, "both_ends_live_on_svids_from_a_socket_and_no_call_fails_while_they_rotate");
const LOST_AND_BACK: Shown = Test(ELSEWHERE, "a_lost_identity_closes_the_gate_and_a_lost_socket_does_not");
const WIT: Shown = Not("WIT-SVIDs are not offered");
const BUNDLE_MAP: Shown = Not("no bundle map is offered or read");
const BROKER_ENDPOINT: Shown = Not("no SPIFFE Broker Endpoint is offered");
const BROKER_API: Shown = Not("the SPIFFE Broker API is not offered");

const fn row(
    number: u16,
    level: &'static str,
    section: &'static str,
    requirement: &'static str,
    shown: &'static [Shown],
) -> Row {
    Row { number, level, section, requirement, shown }
}

#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    row(1, "MUST", "SPIFFE-ID 2", "the scheme is `spiffe`, there is a trust domain, no query and no fragment", &[
        Test(ID, "what_is_not_written_as_the_standard_says_is_refused"), Test(ID, "what_is_written_as_the_standard_says_is_accepted_unchanged"),
    ]),
    row(2, "MUST", "SPIFFE-ID 2.1", "a trust domain that is not empty, without user information and port", &[
        Test(ID, "what_is_not_written_as_the_standard_says_is_refused"),
    ]),
    row(3, "MUST", "SPIFFE-ID 2.1", "a trust domain of lower-case letters, digits, dots, dashes and underscores, nothing encoded", &[
        Test(ID, "what_is_not_written_as_the_standard_says_is_refused"), Test(ID, "a_trust_domain_is_accepted_if_and_only_if_its_characters_are"),
    ]),
    row(4, "MUST NOT", "SPIFFE-ID 2.1", "names that look like addresses or hosts are names like any other; nothing is looked up", &[
        Test(ID, "what_is_written_as_the_standard_says_is_accepted_unchanged"), Test(TIDY, "pure_crates_reach_no_runtime"),
    ]),
    row(5, "MUST NOT", "SPIFFE-ID 2.2", "nothing in a path is percent-encoded", &[Test(ID, "what_is_not_written_as_the_standard_says_is_refused")]),
    row(6, "MUST NOT", "SPIFFE-ID 2.2", "no empty segment, no `.`, no `..`; nothing is normalised", &[
        Test(ID, "what_is_not_written_as_the_standard_says_is_refused"),
    ]),
    row(7, "MUST NOT", "SPIFFE-ID 2.2", "no slash at the end; the ID of a trust domain has none either", &[
        Test(ID, "what_is_not_written_as_the_standard_says_is_refused"), Test(ID, "what_is_written_as_the_standard_says_is_accepted_unchanged"),
    ]),
    row(8, "MUST", "SPIFFE-ID 2.2", "the characters of a segment", &[Test(ID, "a_segment_holds_the_standards_characters_only")]),
    row(9, "MUST / SHOULD NOT", "SPIFFE-ID 2.3", "IDs of 2048 bytes work everywhere, longer ones are not made; trust domains of up to 255", &[
        Test(OURS, "an_id_of_2048_bytes_is_registered_issued_and_believed"), Test(ID, "an_id_has_at_most_2048_bytes_and_a_trust_domain_255"),
    ]),
    row(10, "ambiguous", "SPIFFE-ID 2.4", "upper case in scheme and trust domain is refused instead of folded; paths differ by case", &[
        Test(ID, "what_is_written_as_the_standard_says_is_accepted_unchanged"), Test(ID, "upper_case_is_answered_with_the_right_spelling"),
    ]),
    row(11, "MUST", "SPIFFE-ID 3.1", "a trust domain has an authority with an SVID of its own", &[
        Check("a_signing_certificate_has_the_profile_of_an_authority"),
    ]),
    row(12, "SHOULD / SHOULD NOT", "SPIFFE-ID 3.1", "the authority's ID is that of its trust domain, without a path", &[
        Check("a_signing_certificate_has_the_profile_of_an_authority"), Test(ROOTS, "an_authority_may_carry_the_id_of_its_trust_domain_or_none"),
    ]),
    row(13, "MUST", "SPIFFE-ID 3.2", "ID and key lie inside what is signed", &[
        Test(CHAIN, "no_changed_bit_of_a_leaf_goes_unnoticed"), Test(TOKENS, "a_token_that_was_changed_anywhere_is_refused"),
        Check("a_token_that_was_changed_anywhere_is_refused"),
    ]),
    row(14, "MUST", "SPIFFE-ID 3.3", "documents of other types are not SVIDs", &[
        Test(LEAF, "what_is_no_certificate_is_refused"), Test(TOKENS, "a_type_is_jwt_jose_or_not_named"),
        Check("other_texts_than_tokens_are_refused"),
    ]),
    row(15, "MUST", "X509-SVID 2", "exactly one URI, whatever the request asked for", &[
        Check("a_leaf_has_the_profile_of_an_svid"), Test(CA, "of_a_request_only_the_key_is_used"),
        Test(SIGN, "a_request_for_more_than_a_key_yields_the_entrys_id_and_nothing_else"),
    ]),
    row(16, "MUST", "X509-SVID 2, 5.2", "validators refuse a second URI", &[
        Test(LEAF, "a_leaf_carries_exactly_one_uri"), Test(CHAIN, "a_leaf_that_breaks_a_clause_is_refused_although_it_is_signed"),
        Test(TLS, "who_cannot_prove_an_svid_of_the_trust_domain_gets_no_connection"), Test(QUIC, "a_client_with_two_uri_names_is_refused"),
    ]),
    row(17, "MUST", "X509-SVID 3.1, 5.2", "a leaf's ID has a path, at issue and for validators", &[
        Check("a_leaf_has_the_profile_of_an_svid"), Test(LEAF, "the_uri_is_a_spiffe_id_with_a_path"),
        Test(CHAIN, "a_leaf_that_breaks_a_clause_is_refused_although_it_is_signed"),
    ]),
    row(18, "MUST", "X509-SVID 3.1", "the names are critical where there is no subject", &[Check("a_leaf_has_the_profile_of_an_svid")]),
    row(19, "SHOULD", "X509-SVID 3.2", "a signing certificate is an SVID itself", &[Check("a_signing_certificate_has_the_profile_of_an_authority")]),
    row(20, "MUST NOT / SHOULD", "X509-SVID 3.2", "its ID has no path and is of its leaves' trust domain", &[
        Check("a_signing_certificate_has_the_profile_of_an_authority"), Test(CHAIN, "an_intermediate_with_the_id_of_a_workload_is_refused"),
    ]),
    row(21, "MUST NOT", "X509-SVID 3.2", "a signing certificate authenticates nobody", &[
        Test(CHAIN, "a_signing_certificate_does_not_authenticate"), Test(TLS, "who_cannot_prove_an_svid_of_the_trust_domain_gets_no_connection"),
    ]),
    row(22, "MUST", "X509-SVID 4.1", "`cA` is true where it signs and said to be false in a leaf", &[
        Check("a_leaf_has_the_profile_of_an_svid"), Check("a_signing_certificate_has_the_profile_of_an_authority"),
        Test(LEAF, "a_leaf_says_that_it_is_no_authority"),
    ]),
    row(23, "MAY", "X509-SVID 4.2", "name constraints: none are issued", &[Check("a_signing_certificate_has_the_profile_of_an_authority")]),
    row(24, "MUST", "X509-SVID 4.3", "KeyUsage is there and critical", &[
        Check("a_leaf_has_the_profile_of_an_svid"), Check("a_signing_certificate_has_the_profile_of_an_authority"),
        Test(LEAF, "key_usage_is_present_and_critical"),
    ]),
    row(25, "MUST / MAY", "X509-SVID 4.3", "signing certificates have `keyCertSign`", &[
        Check("a_signing_certificate_has_the_profile_of_an_authority"), Test(CHAIN, "an_intermediate_without_key_cert_sign_is_refused"),
    ]),
    row(26, "MUST / MUST NOT", "X509-SVID 4.3", "leaves have `digitalSignature`, never `keyCertSign` or `cRLSign`", &[
        Check("a_leaf_has_the_profile_of_an_svid"), Test(CA, "of_a_request_only_the_key_is_used"),
    ]),
    row(27, "SHOULD / MUST", "X509-SVID 4.4", "an extended key usage for both directions", &[
        Check("a_leaf_has_the_profile_of_an_svid"), Test(LEAF, "an_extended_key_usage_allows_both_directions"),
    ]),
    row(28, "MUST", "X509-SVID 5.1", "path validation of RFC 5280", &[
        Check("openssl_verifies_every_chain_and_key"),
        Test(OURS, "openssl_accepts_what_is_handed_out_through_renewals_and_roots_that_follow_one_another"),
        Test(CHAIN, "a_path_length_is_kept_by_the_root_and_by_intermediates"), Test(CHAIN, "an_unknown_critical_extension_is_refused"),
        Test(CHAIN, "an_intermediate_has_to_be_valid_too"), Test(CHAIN, "an_unknown_trust_domain_and_an_unknown_root_are_refused"),
    ]),
    row(29, "MUST", "X509-SVID 5.2", "validators check a leaf's constraints, usage, scheme and path, as client and as server", &[
        Test(CHAIN, "a_leaf_that_breaks_a_clause_is_refused_although_it_is_signed"),
        Test(TLS, "who_cannot_prove_an_svid_of_the_trust_domain_gets_no_connection"),
    ]),
    row(30, "security", "X509-SVID Federation 7.3", "a name is verified with its own trust domain's bundle alone", &[
        Test(CHAIN, "another_trust_domains_authority_cannot_sign_for_this_one"),
        Test(QUIC, "a_client_signed_by_another_domains_authority_is_refused"),
    ]),
    row(31, "MUST", "X509-SVID 6.1", "in a bundle `use` is `x509-svid`", &[Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names")]),
    row(32, "MUST NOT", "X509-SVID 6.1", "such a key has no `kid`", &[Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names")]),
    row(33, "MUST / SHOULD", "X509-SVID 6.1", "`x5c` is one certificate in base64, and the key beside it is its own", &[
        Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names"), Test(DOCUMENT, "a_key_beside_a_certificate_is_the_certificate_s"),
    ]),
    row(34, "MUST", "X509-SVID 6.2", "an entry without `x5c` is passed over; of several values the first counts", &[
        Test(DOCUMENT, "an_unreadable_certificate_does_not_discard_the_others"), Test(DOCUMENT, "of_several_certificates_the_first_counts"),
    ]),
    row(35, "MUST NOT", "JWT-SVID 1, 5.1", "no serialisation but the compact one", &[
        Check("other_texts_than_tokens_are_refused"), Test(TOKENS, "only_the_compact_serialisation_is_read"),
    ]),
    row(36, "MUST NOT", "JWT-SVID 2", "no header but `alg`, `kid`, `typ`", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "a_signed_token_holds_exactly_what_the_standard_names"),
        Test(TOKENS, "another_header_is_refused_even_if_it_is_signed"),
    ]),
    row(37, "MUST", "JWT-SVID 2.1", "one of the nine algorithms", &[Check("a_token_holds_what_the_standard_names")]),
    row(38, "MUST", "JWT-SVID 2.1, 4", "any other is refused before anything else", &[
        Test(TOKENS, "another_algorithm_is_refused_before_anything_else"), Test(TOKENS, "the_public_key_is_no_secret_for_a_mac"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"), Check("a_token_that_was_changed_anywhere_is_refused"),
    ]),
    row(39, "MUST", "JWT-SVID RFC 7518", "a key verifies its own algorithm alone", &[
        Test(TOKENS, "a_key_verifies_the_algorithm_that_it_is_for_and_no_other"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(40, "MAY", "JWT-SVID 2.2", "`kid` is always written, and demanded", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "a_token_names_its_key"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(41, "MUST", "JWT-SVID 2.3", "`typ` is `JWT`, `JOSE` or absent", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "a_type_is_jwt_jose_or_not_named"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(42, "MUST", "JWT-SVID 3.1", "`sub` is the SPIFFE ID", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "a_subject_is_the_id_of_a_workload"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(43, "MUST", "JWT-SVID 3.2", "`aud` is there and names the validator", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "an_audience_is_there_and_names_the_validator_exactly"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"), Check("a_token_is_validated_by_its_rules"),
    ]),
    row(44, "SHOULD", "JWT-SVID 3.2, 7.2", "a token is for few audiences", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "what_would_be_no_jwt_svid_is_not_signed"),
    ]),
    row(45, "MUST", "JWT-SVID 3.3", "`exp` is there and not past", &[
        Check("a_token_holds_what_the_standard_names"), Test(TOKENS, "a_token_expires"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(46, "SHOULD", "JWT-SVID 5.2, 5.3", "a token travels as `Authorization: Bearer`", &[
        Not("the sidecar sends no JWT-SVID of its own: it proves itself by X.509-SVIDs"),
    ]),
    row(47, "MUST", "JWT-SVID 6.1", "in a bundle `use` is `jwt-svid`, and there is a `kid`", &[
        Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names"),
    ]),
    row(48, "MUST", "JWT-SVID 6.2", "only `jwt-svid` keys verify tokens", &[Test(DOCUMENT, "keys_for_another_use_verify_no_token")]),
    row(49, "advice", "JWT-SVID 7", "tokens live shortly and are never logged", &[
        Check("a_token_holds_what_the_standard_names"), Test(TTL, "a_token_lives_an_hour_at_most"), Test(REGRESSIONS, "no_log_holds_a_secret"),
    ]),
    row(50, "note", "JWT-SVID schema", "the JSON schema contradicts the text about `aud`", &[Not("a note about the documents; nothing to follow")]),
    row(51, "MUST", "WIT-SVID 2.1", "`kid` names the key, uniquely", &[WIT]),
    row(52, "MUST", "WIT-SVID 2.2", "`typ` is `wit+jwt`, and such a token is no JWT-SVID (what is not offered is refused)", &[
        Test(TOKENS, "a_type_is_jwt_jose_or_not_named"), Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(53, "MUST", "WIT-SVID 2.3", "one of the nine algorithms", &[WIT]),
    row(54, "SHOULD NOT / SHOULD", "WIT-SVID 2.4", "no further headers; unknown ones are ignored, but `crit`", &[WIT]),
    row(55, "MUST", "WIT-SVID 3.1", "`sub` is the SPIFFE ID", &[WIT]),
    row(56, "MUST", "WIT-SVID 3.2", "`cnf` holds the key that is proved", &[WIT]),
    row(57, "MAY / MUST", "WIT-SVID 3.3", "`jti` does not repeat, and is no guard against replay", &[WIT]),
    row(58, "MUST", "WIT-SVID 3.4", "`exp` is there and not past", &[WIT]),
    row(59, "MUST", "WIT-SVID 3.5", "`nbf` is not in the future", &[WIT]),
    row(60, "MUST NOT", "WIT-SVID 3.6", "`iat` is not taken for `nbf`", &[WIT]),
    row(61, "SHOULD NOT", "WIT-SVID 3.7", "`iss` is nothing that OIDC would find", &[WIT]),
    row(62, "MUST NOT", "WIT-SVID 3.8", "no `aud`", &[WIT]),
    row(63, "MUST NOT", "WIT-SVID 4, 5, 7.1", "never without proof of possession, never as a bearer", &[WIT]),
    row(64, "MUST", "WIT-SVID 6.1", "`use` is `wit-svid`, `kid` unique in the bundle", &[WIT]),
    row(65, "MUST", "WIT-SVID Workload API 7", "where they are not supported, both calls answer `Unimplemented`", &[
        Check("wit_calls_are_answered_or_unimplemented"), Test(SOCKET, "wit_svids_are_not_offered"),
    ]),
    row(66, "SHOULD / MUST", "Trust Domain and Bundle 4.1.1", "a sequence number that grows with every change", &[
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"),
        Test(SUCCESSION, "nodes_hear_of_an_authority_before_it_signs_and_of_its_end"),
        Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names"),
    ]),
    row(67, "SHOULD / MUST", "Trust Domain and Bundle 4.1.2", "a refresh hint, in whole seconds", &[
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"), Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names"),
    ]),
    row(68, "MUST NOT", "Trust Domain and Bundle 4.1", "readers need no members beyond `keys`, and stumble over none", &[
        Test(DOCUMENT, "members_that_the_standard_does_not_name_are_not_looked_at"),
    ]),
    row(69, "MUST", "Trust Domain and Bundle 4.1.3, 4.2", "keys of an unknown type or use are passed over, the others count", &[
        Test(DOCUMENT, "keys_of_an_unknown_type_or_use_are_passed_over"), Test(FEDERATION, "a_key_that_cannot_be_read_does_not_discard_the_others"),
    ]),
    row(70, "MUST", "Trust Domain and Bundle 4.1.3", "who has an empty bundle trusts nobody of that domain (an endpoint that had keys and says that it has none is not believed: decided so)", &[
        Test(DOCUMENT, "a_document_without_usable_keys_is_valid_and_trusts_nobody"), Test(CHAIN, "an_empty_bundle_trusts_nobody"),
        Test(FEDERATION, "what_a_lying_endpoint_says_changes_nothing"),
    ]),
    row(71, "derived", "Trust Domain and Bundle 4.1.3", "what is no document with `keys` changes nothing", &[
        Test(FEDERATION, "what_a_lying_endpoint_says_changes_nothing"), Test(DOCUMENT, "what_is_no_bundle_document_is_refused_as_a_whole"),
    ]),
    row(72, "SHOULD NOT", "Trust Domain and Bundle 4.2", "no parameters of keys that nobody defined", &[
        Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names"),
    ]),
    row(73, "MUST", "Trust Domain and Bundle 4.2", "`kty` and `use` are there; `use` differs by case", &[
        Test(DOCUMENT, "a_document_holds_exactly_what_the_standard_names"), Test(DOCUMENT, "keys_of_an_unknown_type_or_use_are_passed_over"),
    ]),
    row(74, "MUST", "Trust Domain and Bundle 5.1.1", "a bundle map has `trust_domains`", &[BUNDLE_MAP]),
    row(75, "MUST", "Trust Domain and Bundle 5.1.1", "a bundle map names a trust domain once", &[BUNDLE_MAP]),
    row(76, "SHOULD / MUST NOT", "Trust Domain and Bundle 5.1.1", "no refresh hint inside a bundle map", &[BUNDLE_MAP]),
    row(77, "advice", "Trust Domain and Bundle 2, 6.2", "one key, one trust domain", &[Test(FOREIGN, "no_key_serves_two_trust_domains")]),
    row(78, "MUST", "Federation 4.1", "a key is published before it signs", &[
        Test(OURS, "nothing_is_signed_by_an_authority_that_is_not_published"),
        Test(SUCCESSION, "nodes_hear_of_an_authority_before_it_signs_and_of_its_end"),
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"),
    ]),
    row(79, "SHOULD", "Federation 4.1", "well ahead, and removed once nothing of it is valid", &[
        Test(SUCCESSION, "authorities_follow_one_another_by_time_and_no_svid_is_ever_refused"),
        Test(CA, "another_authority_follows_and_what_each_signed_stays_good"),
    ]),
    row(80, "SHOULD", "Federation 4.1, 6.2", "fetched as often as the publisher wishes", &[
        Test(SCHEDULE, "the_publisher_s_wish_is_obeyed_within_bounds"),
    ]),
    row(81, "SHOULD", "Federation 6.2", "after a failure not at once again", &[
        Test(FEDERATION, "what_a_lying_endpoint_says_changes_nothing"), Test(SCHEDULE, "waits_differ_and_never_fall_below_the_floor"),
    ]),
    row(82, "SHOULD", "Federation 4.2", "the last bundle is kept over restarts, and no earlier one is taken", &[
        Test(FEDERATION, "trust_survives_a_restart_while_the_endpoint_is_down"), Test(FOREIGN, "a_bundle_only_goes_forward"),
    ]),
    row(83, "MUST NOT", "Federation 4.2, 7.3", "bundles of different trust domains are never merged", &[
        Test(ROOTS, "bundles_of_one_trust_domain_are_merged_and_no_others"), Test(CHAIN, "another_trust_domains_authority_cannot_sign_for_this_one"),
    ]),
    row(84, "MUST", "Federation 5", "both profiles as a client, and as a server", &[
        Test(FEDERATION, "a_bundle_is_fetched_believed_and_told_of"), Test(FEDERATION, "two_brokers_federate_by_their_svids"),
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"),
    ]),
    row(85, "MUST", "Federation 5", "TLS 1.2 and 1.3 alone (rustls with ring has no weaker suites than the \"intermediate\" ones)", &[
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"),
    ]),
    row(86, "MUST", "Federation 5.1, 7.2", "URL, profile and trust domain are said, none is inferred", &[
        Test(FEDERATION, "what_the_command_says_must_fit_together"), Test(FOREIGN, "a_domain_has_a_bundle_or_a_way_to_one"),
    ]),
    row(87, "MUST", "Federation 5.1", "workloads learn which bundle is whose", &[
        Check("x509_bundles_are_named_by_trust_domain_ids"),
        Test(OURS, "a_foreign_domain_vouches_for_its_own_names_alone_and_leaves_with_its_bundle"),
    ]),
    row(88, "MUST / MUST NOT", "Federation 5.2.1.1, 5.2.2.1", "an endpoint is an https URL without user information", &[
        Test(ENDPOINT, "what_federation_forbids_is_refused"), Test(FEDERATION, "what_the_command_says_must_fit_together"),
    ]),
    row(89, "MUST NOT", "Federation 5.2.1.2", "https_web needs nothing else", &[
        Test(FEDERATION, "a_bundle_is_fetched_believed_and_told_of"), Test(FEDERATION, "what_the_command_says_must_fit_together"),
    ]),
    row(90, "SHOULD / MUST", "Federation 5.2.1.3", "an https_web certificate of a public authority with the host's name", &[
        Not("the certificate is the operator's to bring"),
    ]),
    row(91, "MUST NOT", "Federation 5.2.1.3, 5.2.2.3", "no client is authenticated", &[
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"),
    ]),
    row(92, "MUST", "Federation 5.2.1.3, 5.2.2.3", "GET gives the latest bundle as JSON; other methods and paths give nothing", &[
        Test(FEDERATION, "our_bundle_is_served_to_any_client_of_the_web"),
    ]),
    row(93, "MAY / MUST", "Federation 5.2.1.3, 5.2.2.3", "a server redirects to an endpoint's URL alone", &[Not("our endpoint never redirects")]),
    row(94, "MUST", "Federation 5.2.1.4", "the host's certificate, by locally trusted authorities", &[
        Test(FEDERATION, "an_endpoint_of_the_web_proves_its_host"),
    ]),
    row(95, "SHOULD / MUST", "Federation 5.2.1.4, 5.2.2.4", "redirections obey the same rules and are not remembered", &[
        Test(FEDERATION, "a_redirection_obeys_the_same_rules_and_is_forgotten"), Test(ENDPOINT, "a_redirection_stays_at_an_endpoint_s_url"),
    ]),
    row(96, "MUST", "Federation 5.2.2.3", "an https_spiffe server shows an X.509-SVID", &[Test(FEDERATION, "two_brokers_federate_by_their_svids")]),
    row(97, "MUST", "Federation 5.2.2.2", "its client knows the server's ID and has a bundle to begin with", &[
        Test(FEDERATION, "what_the_command_says_must_fit_together"), Test(FEDERATION, "two_brokers_federate_by_their_svids"),
    ]),
    row(98, "MUST", "Federation 5.2.2.4", "exactly that ID", &[Test(FEDERATION, "two_brokers_federate_by_their_svids")]),
    row(99, "MUST", "Federation 5.2.2.4", "the latest bundle verifies the next fetch", &[
        Test(FEDERATION, "an_endpoint_s_latest_bundle_proves_it_the_next_time"),
    ]),
    row(100, "-", "Federation 6.3", "the end of a relationship takes the bundle from workloads", &[
        Test(OURS, "a_foreign_domain_vouches_for_its_own_names_alone_and_leaves_with_its_bundle"),
        Test(FEDERATION, "a_node_sees_the_domains_that_its_entries_federate_with_and_no_others"),
    ]),
    row(101, "SHOULD", "Federation 7.6", "every fetch is on record", &[
        Test(FEDERATION, "a_bundle_is_fetched_believed_and_told_of"), Test(FEDERATION, "what_a_lying_endpoint_says_changes_nothing"),
    ]),
    row(102, "SHOULD / SHOULD NOT", "Workload Endpoint 2", "local to one host", &[Test(OURS, "an_agent_listens_to_no_network")]),
    row(103, "MUST", "Workload Endpoint 3", "gRPC, for clients of every make", &[
        Check("nothing_but_the_header_is_asked_of_a_caller"),
        Test(PYTHON, "a_python_client_uses_every_call_of_the_workload_api_and_follows_rotations"),
        Test(CLIENTS, "an_x509_source_follows_renewals_and_authorities"),
    ]),
    row(104, "SHOULD", "Workload Endpoint 3", "a Unix socket", &[Check("nothing_but_the_header_is_asked_of_a_caller")]),
    row(105, "MUST NOT", "Workload Endpoint 3", "no TCP where callers cannot be told", &[Test(OURS, "an_agent_listens_to_no_network")]),
    row(106, "MUST", "Workload Endpoint 3", "a client sends the security header", &[ON_A_SOCKET]),
    row(107, "MUST", "Workload Endpoint 3, 6", "without it, or with another value: `InvalidArgument`", &[
        Check("every_call_demands_the_security_header_once"), Test(SOCKET, "every_call_demands_the_security_header_once"),
    ]),
    row(108, "MUST NOT", "Workload Endpoint 3.1", "no TLS is demanded", &[Check("nothing_but_the_header_is_asked_of_a_caller")]),
    row(109, "MUST", "Workload Endpoint 4", "a client is configured, or reads `SPIFFE_ENDPOINT_SOCKET`", &[Test(ELSEWHERE, "a_host_takes_its_component_s_identity_from_a_socket"), ON_A_SOCKET]),
    row(110, "MUST", "Workload Endpoint 4", "a client knows which addresses are legal", &[Test(SOURCE, "only_a_unix_socket_without_authority_query_and_fragment_is_an_address")]),
    row(111, "MUST NOT", "Workload Endpoint 5", "nothing is asked of the workload itself", &[Check("nothing_but_the_header_is_asked_of_a_caller")]),
    row(112, "SHOULD", "Workload Endpoint 5", "the kernel says who calls", &[
        Test(ATTEST, "this_process_is_known_by_user_path_and_digest"), Test(ATTEST, "a_program_that_is_run_instead_is_noticed"),
        Test(CGROUP, "forged_container_folders_earn_nothing"),
    ]),
    row(113, "code", "Workload Endpoint 6", "not ready, or too much: `Unavailable`", &[
        Test(SOCKET, "until_the_broker_has_spoken_callers_are_told_to_wait"), Test(SOCKET, "a_user_takes_no_more_than_its_share"),
    ]),
    row(114, "SHOULD", "Workload Endpoint 6", "no identity: `PermissionDenied`", &[
        Test(SOCKET, "a_stranger_is_denied_everything"), Test(PYTHON, "a_stranger_on_the_socket_gets_no_identity_and_the_log_says_what_it_is"),
    ]),
    row(115, "SHOULD NOT / MAY", "Workload Endpoint 6", "a client tries again where that makes sense", &[LOST_AND_BACK]),
    row(116, "MUST NOT", "Workload Endpoint 7", "the standard's services are not extended", &[
        Check("the_service_is_the_standard_s_and_nothing_more"),
    ]),
    row(117, "MUST / SHOULD", "Workload Endpoint 7", "the Workload API is there, and reflection", &[
        Check("nothing_but_the_header_is_asked_of_a_caller"), Test(SOCKET, "the_api_describes_itself_to_who_sends_the_header"),
    ]),
    row(118, "MUST / MAY", "Workload API 1", "both profiles, X.509 and JWT", &[Check("nothing_but_the_header_is_asked_of_a_caller")]),
    row(119, "MUST NOT", "Workload API 2", "no further calls", &[Check("the_service_is_the_standard_s_and_nothing_more")]),
    row(120, "SHOULD", "Workload API 4.2", "a client keeps its stream and comes back at once", &[LOST_AND_BACK]),
    row(121, "MUST", "Workload API 4.3", "every message is the whole set", &[
        Test(OURS, "every_message_is_the_whole_set_and_the_last_loss_ends_the_stream"),
        Test(SOCKET, "a_workload_gets_its_svids_at_once_and_after_every_change"),
    ]),
    row(122, "MUST", "Workload API 4.3", "the first message comes at once", &[Check("the_first_message_comes_at_once")]),
    row(123, "SHOULD", "Workload API 4.3", "changes are pushed; renewals and pushes to many are spread", &[
        Test(OURS, "every_message_is_the_whole_set_and_the_last_loss_ends_the_stream"), Test(RENEWAL, "renewal_lies_around_half_life"),
        Test(API, "a_change_reaches_few_streams_at_once_and_thousands_over_half_a_second"),
    ]),
    row(124, "MUST NOT", "Workload API 4.4", "a client keeps nothing that became empty", &[LOST_AND_BACK]),
    row(125, "SHOULD", "Workload API 4.4", "what is absent was withdrawn", &[LOST_AND_BACK]),
    row(126, "SHOULD", "Workload API 4.5", "mandatory fields are set", &[Check("every_field_of_an_x509_svid_is_set")]),
    row(127, "MUST (effect)", "Workload API 4.6", "a peer is verified with its own domain's bundle; without one it is not believed", &[
        Test(CHAIN, "another_trust_domains_authority_cannot_sign_for_this_one"),
        Test(CHAIN, "an_unknown_trust_domain_and_an_unknown_root_are_refused"),
    ]),
    row(128, "MUST", "Workload API 5.2.1", "at least one identity: ID, chain from the leaf up, PKCS#8 key, bundle", &[
        Check("every_field_of_an_x509_svid_is_set"), Check("openssl_verifies_every_chain_and_key"),
    ]),
    row(129, "MUST", "Workload API 5.2.1, 6.2.1", "a hint is unique in its message", &[
        Check("hints_are_unique_and_short"), Test(OURS, "every_message_is_the_whole_set_and_the_last_loss_ends_the_stream"),
        Test(SNAPSHOT, "the_oldest_entry_comes_first_and_a_hint_is_the_older_one_s"),
    ]),
    row(130, "SHOULD", "Workload API 5.2.1, 6.2.1", "of two with one hint a client takes the first", &[Not("our clients choose by SPIFFE ID, never by hint")]),
    row(131, "SHOULD", "Workload API 5.2.1", "not entitled, or not any more: `PermissionDenied`", &[
        Test(OURS, "every_message_is_the_whole_set_and_the_last_loss_ends_the_stream"),
        Test(SOCKET, "a_redacted_identity_leaves_and_the_last_one_ends_the_stream"),
    ]),
    row(132, "SHOULD", "Workload API 5.2.1", "a client stops using what was withdrawn", &[LOST_AND_BACK]),
    row(133, "MUST", "Workload API 5.2", "X.509 bundles are for X.509-SVIDs alone", &[
        Check("x509_bundles_are_named_by_trust_domain_ids"), Check("jwt_bundles_are_sets_of_token_keys"),
    ]),
    row(134, "MUST", "Workload API 5.2.2", "the own trust domain is among the bundles, named by its ID", &[
        Check("x509_bundles_are_named_by_trust_domain_ids"),
    ]),
    row(135, "MUST", "Workload API 6.2.1", "an audience is demanded and embedded; without an ID all identities answer", &[
        Check("tokens_are_for_an_audience_and_own_identities"), Check("a_token_holds_what_the_standard_names"),
    ]),
    row(136, "SHOULD", "Workload API 6.2.1", "another's ID: `PermissionDenied`", &[
        Check("tokens_are_for_an_audience_and_own_identities"), Test(SOCKET, "jwt_svids_are_of_the_callers_own_identities"),
    ]),
    row(137, "MUST", "Workload API 6.2.2", "plain JWK sets, the own trust domain's among them, no keys for other uses", &[
        Check("jwt_bundles_are_sets_of_token_keys"), Check("openssl_verifies_a_token_by_the_bundle"),
    ]),
    row(138, "MUST", "Workload API 6.2.3", "validation applies every rule of JWT-SVIDs and returns the claims", &[
        Check("a_token_is_validated_by_its_rules"), Check("a_token_that_was_changed_anywhere_is_refused"),
        Test(OURS, "a_token_that_breaks_a_rule_is_refused_although_it_is_signed"),
    ]),
    row(139, "MUST", "Workload API 6.3", "with the bundle of the subject's trust domain alone", &[
        Test(OURS, "a_foreign_domain_vouches_for_its_own_names_alone_and_leaves_with_its_bundle"),
        Test(TOKENS, "a_subject_is_vouched_for_by_its_own_trust_domain_alone"),
    ]),
    row(140, "MUST", "Workload API 7", "WIT calls answer `Unimplemented`", &[Check("wit_calls_are_answered_or_unimplemented")]),
    row(141, "SHOULD NOT", "Workload API 8", "no hint is longer than 1024 bytes", &[
        Check("hints_are_unique_and_short"), Test(TERMS, "a_hint_has_at_most_1024_bytes_and_no_control_characters"),
    ]),
    row(142, "default", "Workload API 8", "the first identity is the default, and the order stays", &[
        Check("identities_come_in_one_order"), Test(OURS, "the_order_of_identities_outlives_restarts"),
    ]),
    row(143, "SHOULD", "Broker Endpoint 2", "reached by chosen clients, not by workloads", &[BROKER_ENDPOINT]),
    row(144, "MUST", "Broker Endpoint 3", "gRPC over a Unix socket or TCP", &[BROKER_ENDPOINT]),
    row(145, "MUST", "Broker Endpoint 3, 6", "`broker.spiffe.io: true`, else `InvalidArgument`", &[BROKER_ENDPOINT]),
    row(146, "required", "Broker Endpoint 3.1, 5", "mutual TLS by X.509-SVIDs on both", &[BROKER_ENDPOINT]),
    row(147, "MUST", "Broker Endpoint 4", "`SPIFFE_BROKER_SOCKET` and its addresses", &[BROKER_ENDPOINT]),
    row(148, "required", "Broker Endpoint 5", "a list of the clients that may", &[BROKER_ENDPOINT]),
    row(149, "required", "Broker Endpoint 5", "the client checks whom it asks", &[BROKER_ENDPOINT]),
    row(150, "codes", "Broker Endpoint 6", "`Unauthenticated`, `PermissionDenied`, `Unavailable`", &[BROKER_ENDPOINT]),
    row(151, "MUST / SHOULD", "Broker Endpoint 7", "the Broker API, and reflection", &[BROKER_ENDPOINT]),
    row(152, "MUST", "Broker API 1", "both profiles", &[BROKER_API]),
    row(153, "MUST NOT", "Broker API 2", "no further calls; own kinds of references are allowed", &[BROKER_API]),
    row(154, "MUST", "Broker API 3.1", "one reference in a request, unique and in scope", &[BROKER_API]),
    row(155, "MUST NOT", "Broker API 3.1", "local references do not leave their host", &[BROKER_API]),
    row(156, "MUST", "Broker API 3.1.1", "the server resolves a reference and sees that it exists", &[BROKER_API]),
    row(157, "MUST NOT", "Broker API 3.1.1", "attributes in a reference are not believed", &[BROKER_API]),
    row(158, "MUST", "Broker API 3.1.3", "the rules of references to Kubernetes objects", &[BROKER_API]),
    row(159, "SHOULD / MUST", "Broker API 3.1.4", "an unknown kind of reference: `InvalidArgument`", &[BROKER_API]),
    row(160, "MUST", "Broker API 4.1", "what is not allowed is denied", &[BROKER_API]),
    row(161, "MUST NOT", "Broker API 4.2", "no workload sees what is another's", &[BROKER_API]),
    row(162, "SHOULD / MUST", "Broker API 4.3, 4.4", "long connections, whole sets, the first at once, spread", &[BROKER_API]),
    row(163, "MUST", "Broker API 4.5, 4.7", "defaults and redaction as in the Workload API", &[BROKER_API]),
    row(164, "MUST", "Broker API 4.8", "a code for each kind of refusal", &[BROKER_API]),
    row(165, "SHOULD", "Broker API 4.8", "`ErrorInfo` of `spiffe.io`", &[BROKER_API]),
    row(166, "MUST", "Broker API 4.9", "ends when the workload ends", &[BROKER_API]),
    row(167, "MUST", "Broker API 5.2, 6.2", "at least one identity, own bundle, unique hints, an audience", &[BROKER_API]),
    row(168, "MUST", "Broker API 5.3", "several identities are passed on with their hints", &[BROKER_API]),
];
