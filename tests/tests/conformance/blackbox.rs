//! What can be seen of any Workload API from its socket, whoever wrote it. The caller meets at least one entry.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use portcullis_api::workload::X509svid;
use portcullis_identity::{parse_spiffe_id, parse_trust_domain};
use serde_json::Value;
use tonic::Code;
use tonic::metadata::MetadataValue;
use x509_parser::extensions::ParsedExtension;

use crate::chain::{constraints, key_usage, openssl_agrees, parse, split, uris};
use crate::socket::{Call, Socket};
use crate::token::{openssl_verifies, part, replaced, unix_now};

/// A check and its name.
pub(crate) type Check = (&'static str, fn(&Socket));

macro_rules! checks {
    ($($check:ident,)*) => { &[$((stringify!($check), $check as fn(&Socket)),)*] };
}

pub(crate) const CHECKS: &[Check] = checks![
    every_call_demands_the_security_header_once,
    nothing_but_the_header_is_asked_of_a_caller,
    wit_calls_are_answered_or_unimplemented,
    the_service_is_the_standard_s_and_nothing_more,
    the_first_message_comes_at_once,
    every_field_of_an_x509_svid_is_set,
    a_leaf_has_the_profile_of_an_svid,
    a_signing_certificate_has_the_profile_of_an_authority,
    openssl_verifies_every_chain_and_key,
    x509_bundles_are_named_by_trust_domain_ids,
    jwt_bundles_are_sets_of_token_keys,
    hints_are_unique_and_short,
    identities_come_in_one_order,
    a_token_holds_what_the_standard_names,
    openssl_verifies_a_token_by_the_bundle,
    tokens_are_for_an_audience_and_own_identities,
    a_token_is_validated_by_its_rules,
    a_token_that_was_changed_anywhere_is_refused,
    other_texts_than_tokens_are_refused,
];

fn svids(socket: &Socket) -> Vec<X509svid> {
    socket.x509().unwrap().svids
}

fn trust_domain(socket: &Socket) -> String {
    let id = svids(socket).remove(0).spiffe_id;
    format!("spiffe://{}", parse_spiffe_id(&id).unwrap().trust_domain_name())
}

fn every_call_demands_the_security_header_once(socket: &Socket) {
    let wrong: [&[&str]; 7] = [&[], &["True"], &["1"], &[""], &["true", "true"], &["true", "false"], &["true, true"]];
    for call in Call::STABLE {
        for header in wrong {
            assert_eq!(socket.code(call, header), Code::InvalidArgument, "{call:?} {header:?}");
        }
        let binary = socket.code_with(call, |metadata| {
            metadata.insert_bin("workload.spiffe.io-bin", MetadataValue::from_bytes(b"true"));
        });
        assert_eq!(binary, Code::InvalidArgument, "{call:?}");
    }
    for call in [Call::WIT, Call::UNKNOWN].concat() {
        let code = socket.code(call, &[]);
        assert!([Code::InvalidArgument, Code::Unimplemented].contains(&code), "{call:?}: {code:?}");
    }
}

/// gRPC without TLS, over a Unix socket, with one header field and nothing else.
fn nothing_but_the_header_is_asked_of_a_caller(socket: &Socket) {
    for call in Call::STABLE.into_iter().filter(|call| *call != Call::Validate) {
        assert_eq!(socket.code(call, &["true"]), Code::Ok, "{call:?}");
    }
    assert_eq!(socket.code(Call::Validate, &["true"]), Code::InvalidArgument, "a text that is no token");
}

fn wit_calls_are_answered_or_unimplemented(socket: &Socket) {
    for call in Call::WIT {
        let code = socket.code(call, &["true"]);
        assert!([Code::Unimplemented, Code::Ok].contains(&code), "{call:?}: {code:?}");
    }
}

fn the_service_is_the_standard_s_and_nothing_more(socket: &Socket) {
    for call in Call::UNKNOWN {
        assert_eq!(socket.code(call, &["true"]), Code::Unimplemented, "{call:?}");
    }
}

fn the_first_message_comes_at_once(socket: &Socket) {
    let took = |_| {
        let began = Instant::now();
        svids(socket);
        began.elapsed()
    };
    // The best of ten: a busy machine is not the server's fault.
    let took = (0..10).map(took).min().unwrap();
    println!("    an identity that is there: {took:?}, the connection included");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

fn every_field_of_an_x509_svid_is_set(socket: &Socket) {
    let message = socket.x509().unwrap();
    assert!(!message.svids.is_empty());
    for svid in &message.svids {
        parse_spiffe_id(&svid.spiffe_id).unwrap();
        let leaf = split(&svid.x509_svid)[0];
        assert_eq!(uris(&parse(leaf)), [&svid.spiffe_id]);
        assert!(!svid.x509_svid_key.is_empty() && !split(&svid.bundle).is_empty());
    }
    for (domain, bundle) in &message.federated_bundles {
        parse_trust_domain(domain.strip_prefix("spiffe://").unwrap()).unwrap();
        split(bundle);
    }
}

fn a_leaf_has_the_profile_of_an_svid(socket: &Socket) {
    for svid in svids(socket) {
        let leaf = parse(split(&svid.x509_svid)[0]);
        let [uri] = uris(&leaf)[..] else { panic!("{:?}", uris(&leaf)) };
        let id = parse_spiffe_id(uri).unwrap();
        assert!(!id.path().is_empty() && uri.len() <= 2048);
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(
            names.critical || leaf.subject().iter().next().is_some(),
            "an empty subject, and the names not critical"
        );
        assert!(!constraints(&leaf).ca);
        let usage = key_usage(&leaf);
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
        let usage = leaf.extended_key_usage().unwrap().expect("a leaf should have an extended key usage").value;
        assert!(usage.server_auth && usage.client_auth);
    }
}

fn a_signing_certificate_has_the_profile_of_an_authority(socket: &Socket) {
    for svid in svids(socket) {
        let domain = trust_domain(socket);
        for der in split(&svid.x509_svid).into_iter().skip(1).chain(split(&svid.bundle)) {
            let authority = parse(der);
            assert!(constraints(&authority).ca);
            assert!(key_usage(&authority).key_cert_sign());
            assert!(uris(&authority).iter().all(|uri| *uri == domain), "{:?}", uris(&authority));
            let constrained =
                |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::NameConstraints(_));
            assert!(!authority.iter_extensions().any(|one| constrained(one.parsed_extension())));
        }
        // The authority has an SVID of its own, so that its trust domain is known wherever it goes.
        assert!(split(&svid.bundle).into_iter().all(|root| uris(&parse(root)) == [&domain]));
    }
}

fn openssl_verifies_every_chain_and_key(socket: &Socket) {
    svids(socket).iter().for_each(openssl_agrees);
}

fn x509_bundles_are_named_by_trust_domain_ids(socket: &Socket) {
    let bundles = socket.x509_bundles().unwrap().bundles;
    for (domain, bundle) in &bundles {
        parse_trust_domain(domain.strip_prefix("spiffe://").unwrap()).unwrap();
        // Certificates alone: no key of another profile is among them.
        assert!(split(bundle).into_iter().all(|der| constraints(&parse(der)).ca));
    }
    let set = |bundle: &[u8]| split(bundle).into_iter().map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
    let message = socket.x509().unwrap();
    let own = &bundles[&trust_domain(socket)];
    assert!(message.svids.iter().all(|svid| set(&svid.bundle) == set(own)));
    // What the one call says of other domains, the other says too.
    for (domain, bundle) in &message.federated_bundles {
        assert_eq!(set(&bundles[domain]), set(bundle));
    }
}

fn jwks(bundle: &[u8]) -> Vec<Value> {
    let set: Value = serde_json::from_slice(bundle).unwrap();
    set["keys"].as_array().expect("a JWK set has `keys`").clone()
}

fn jwt_bundles_are_sets_of_token_keys(socket: &Socket) {
    let bundles = socket.jwt_bundles().unwrap().bundles;
    for (domain, bundle) in &bundles {
        parse_trust_domain(domain.strip_prefix("spiffe://").unwrap()).unwrap();
        let keys = jwks(bundle);
        let names: BTreeSet<_> = keys.iter().map(|key| key["kid"].as_str().expect("a key has a name")).collect();
        assert_eq!(names.len(), keys.len());
        for key in &keys {
            assert!(["EC", "RSA"].contains(&key["kty"].as_str().unwrap()), "{key}");
            // Absent, as clients of every kind read it, or the standard's own.
            assert!([None, Some("jwt-svid")].contains(&key["use"].as_str()), "{key}");
            assert!(["x5c", "d", "p", "q"].iter().all(|member| key.get(member).is_none()), "{key}");
        }
    }
    assert!(!jwks(&bundles[&trust_domain(socket)]).is_empty());
}

fn hints_are_unique_and_short(socket: &Socket) {
    let tokens = socket.jwt(&["a"], "").unwrap().svids;
    let x509 = svids(socket).into_iter().map(|svid| svid.hint).collect::<Vec<_>>();
    for hints in [x509, tokens.into_iter().map(|svid| svid.hint).collect()] {
        let named: Vec<_> = hints.iter().filter(|hint| !hint.is_empty()).collect();
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "{hints:?}");
        assert!(hints.iter().all(|hint| hint.len() <= 1024));
    }
}

fn identities_come_in_one_order(socket: &Socket) {
    let ids = || svids(socket).into_iter().map(|svid| svid.spiffe_id).collect::<Vec<_>>();
    let first = ids();
    for _ in 0..10 {
        assert_eq!(ids(), first);
    }
}

fn a_token_holds_what_the_standard_names(socket: &Socket) {
    let algorithms = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
    let bundles = socket.jwt_bundles().unwrap().bundles;
    let keys = jwks(&bundles[&trust_domain(socket)]);
    for svid in socket.jwt(&["a-certain-audience"], "").unwrap().svids {
        let (header, claims) = (part(&svid.svid, 0), part(&svid.svid, 1));
        let members: BTreeSet<_> = header.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(members.is_subset(&["alg", "kid", "typ"].into()), "{header}");
        assert!(algorithms.contains(&header["alg"].as_str().unwrap()), "{header}");
        assert!([None, Some("JWT"), Some("JOSE")].contains(&header["typ"].as_str()), "{header}");
        assert!(keys.iter().any(|key| key["kid"] == header["kid"]), "{header}");
        assert_eq!(claims["sub"], svid.spiffe_id);
        let audience = &claims["aud"];
        assert!(*audience == "a-certain-audience" || *audience == serde_json::json!(["a-certain-audience"]));
        let left = claims["exp"].as_u64().expect("a token expires").checked_sub(unix_now()).expect("in the future");
        assert!(left <= 3600, "{left} s are long for who may carry it away");
    }
}

fn openssl_verifies_a_token_by_the_bundle(socket: &Socket) {
    let token = socket.token("a");
    let header = part(&token, 0);
    assert_eq!(header["alg"], "ES256", "this check knows no other algorithm");
    let bundles = socket.jwt_bundles().unwrap().bundles;
    let keys = jwks(&bundles[&trust_domain(socket)]);
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert!(openssl_verifies(&token, key));
    let mut claims = part(&token, 1);
    claims["sub"] = "spiffe://somebody.else/x".into();
    assert!(!openssl_verifies(&replaced(&token, 1, &claims.to_string()), key));
}

fn tokens_are_for_an_audience_and_own_identities(socket: &Socket) {
    let code = |audience: &[&str], id: &str| socket.jwt(audience, id).map_or_else(|status| status.code(), |_| Code::Ok);
    assert_eq!(code(&[], ""), Code::InvalidArgument);
    assert_eq!(code(&[""], ""), Code::InvalidArgument);
    let domain = trust_domain(socket);
    for malformed in ["x", "http://a.test/x", "spiffe://A.test/x", "spiffe://a.test/x/", "spiffe://a.test/../x"] {
        assert_eq!(code(&["a"], malformed), Code::InvalidArgument, "{malformed}");
    }
    for foreign in [format!("{domain}/no/such/identity"), "spiffe://no.such.domain/x".to_owned()] {
        assert_eq!(code(&["a"], &foreign), Code::PermissionDenied, "{foreign}");
    }
    // Without an ID those of all identities; with one that one's alone.
    let all: Vec<_> = socket.jwt(&["a"], "").unwrap().svids.into_iter().map(|svid| svid.spiffe_id).collect();
    assert_eq!(all, svids(socket).into_iter().map(|svid| svid.spiffe_id).collect::<Vec<_>>());
    let last = all.last().unwrap();
    let one = socket.jwt(&["a", "b"], last).unwrap().svids;
    assert!(one.iter().all(|svid| svid.spiffe_id == *last) && !one.is_empty());
    assert_eq!(part(&one[0].svid, 1)["aud"], serde_json::json!(["a", "b"]));
}

fn a_token_is_validated_by_its_rules(socket: &Socket) {
    let token = socket.token("a");
    let valid = socket.validate(&token, "a").unwrap();
    assert_eq!(valid.spiffe_id, part(&token, 1)["sub"].as_str().unwrap());
    let claims = valid.claims.unwrap().fields;
    assert!(["sub", "aud", "exp"].iter().all(|claim| claims.contains_key(*claim)), "{claims:?}");
    for audience in ["", "A", "a ", "aa", "b", "a,b"] {
        assert_eq!(socket.validate(&token, audience).unwrap_err().code(), Code::InvalidArgument, "`{audience}`");
    }
}

fn a_token_that_was_changed_anywhere_is_refused(socket: &Socket) {
    let token = socket.token("a");
    let changed = |index, change: &dyn Fn(&mut Value)| {
        let mut value = part(&token, index);
        change(&mut value);
        replaced(&token, index, &value.to_string())
    };
    let mut refused = vec![
        changed(1, &|claims| claims["sub"] = "spiffe://somebody.else/x".into()),
        changed(1, &|claims| claims["exp"] = 9_999_999_999_u64.into()),
        changed(1, &|claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
        changed(0, &|header| header["kid"] = "another".into()),
        changed(0, &|header| header["typ"] = "wit+jwt".into()),
        changed(0, &|header| header["crit"] = serde_json::json!(["exp"])),
    ];
    for alg in ["none", "None", "HS256", "EdDSA", "es256", "ES384", "RS256", "PS256", ""] {
        refused.push(changed(0, &|header| header["alg"] = alg.into()));
    }
    for text in refused {
        assert_eq!(socket.validate(&text, "a").unwrap_err().code(), Code::InvalidArgument, "{}", part(&text, 0));
    }
    // Each part, at some of its places: the last digit of base64 may hold bits that say nothing.
    for at in (0..token.len() - 1).step_by(29) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(socket.validate(&text, "a").unwrap_err().code(), Code::InvalidArgument, "at {at}");
    }
}

fn other_texts_than_tokens_are_refused(socket: &Socket) {
    let token = socket.token("a");
    let parts: Vec<_> = token.split('.').collect();
    let flattened = serde_json::json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] });
    let general = serde_json::json!({
        "payload": parts[1], "signatures": [{ "protected": parts[0], "signature": parts[2] }]
    });
    for text in [
        String::new(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!("Bearer {token}"),
        flattened.to_string(),
        general.to_string(),
        "a".repeat(20_000),
    ] {
        assert_eq!(socket.validate(&text, "a").unwrap_err().code(), Code::InvalidArgument, "{text:.60}");
    }
}
