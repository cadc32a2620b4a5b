//! What hosts may start and serve.

use portcullis_policy::{
    ADMISSION_SCHEMA, Admission, AdmissionAction, AdmissionSet, Admissions, Artifact, ArtifactClaims, AskingHost,
    DryRunOutcome, Verdict,
};

use crate::fixture::file;

const PINNED: &str = "ghcr.io/acme/app:1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const HOST: &str = "spiffe://acme.test/host/one";

fn texts(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn start(image: &str) -> Admission {
    Admission {
        host: AskingHost {
            public_key: "NHOST".to_owned(),
            lattice: "prod".to_owned(),
            spiffe_id: Some(HOST.to_owned()),
            labels: texts(&[("zone", "eu")]),
        },
        action: AdmissionAction::StartComponent { max_instances: 5 },
        artifact: Artifact {
            id: "app".to_owned(),
            image: image.parse().unwrap(),
            annotations: texts(&[("team", "billing")]),
            claims: None,
        },
    }
}

fn serve(image: &str, interface: &str, function: &str) -> Admission {
    let (interface, function) = (interface.to_owned(), function.to_owned());
    Admission { action: AdmissionAction::PerformInvocation { interface, function }, ..start(image) }
}

fn provide(image: &str) -> Admission {
    Admission { action: AdmissionAction::StartProvider, ..start(image) }
}

fn with(text: &str) -> Admissions {
    let set = AdmissionSet::parse(&[file("a.cedar", text)]).unwrap_or_else(|problems| panic!("{problems:?}"));
    Admissions::new([&set]).unwrap()
}

fn decide(text: &str, admission: &Admission) -> Verdict {
    with(text).decide(admission)
}

#[track_caller]
fn allows(text: &str, admission: &Admission) {
    let verdict = decide(text, admission);
    assert!(verdict.is_allowed(), "{text}: {verdict}");
}

#[track_caller]
fn denies(text: &str, admission: &Admission) {
    let verdict = decide(text, admission);
    assert!(!verdict.is_allowed(), "{text}: {verdict}");
}

#[test]
fn without_policies_everything_is_denied() {
    let none = Admissions::default();
    assert!(none.is_empty() && !none.concern("prod"));
    for admission in [start(PINNED), provide(PINNED), serve(PINNED, "a:b/c", "d")] {
        assert_eq!(none.decide(&admission).summary(), "denied: no policy permits it");
    }
}

#[test]
fn a_rule_reads_host_image_annotations_and_labels() {
    let admission = start(PINNED);
    for good in [
        "permit (principal, action, resource);",
        "permit (principal == Host::\"NHOST\", action == Action::\"startComponent\", resource == Component::\"prod/app\");",
        "permit (principal in Workload::\"spiffe://acme.test/host/one\", action, resource in Lattice::\"prod\");",
        "permit (principal, action, resource) when { principal has spiffe_id && principal.spiffe_id == \"spiffe://acme.test/host/one\" };",
        "permit (principal, action, resource) when { principal.hasTag(\"zone\") && principal.getTag(\"zone\") == \"eu\" };",
        "permit (principal, action, resource) when { resource.hasTag(\"team\") && resource.getTag(\"team\") == \"billing\" };",
        "permit (principal, action, resource) when { resource.image has registry && resource.image.registry == \"ghcr.io\" };",
        "permit (principal, action, resource) when { resource.image has repository && resource.image.repository like \"acme/*\" };",
        "permit (principal, action == Action::\"startComponent\", resource) when { context.max_instances <= 5 };",
    ] {
        allows(good, &admission);
    }
    for bad in [
        "permit (principal == Host::\"NOTHER\", action, resource);",
        "permit (principal in Workload::\"spiffe://acme.test/host/two\", action, resource);",
        "permit (principal, action == Action::\"startProvider\", resource);",
        "permit (principal, action, resource in Lattice::\"dev\");",
        "permit (principal, action, resource == Component::\"dev/app\");",
        "permit (principal, action, resource) when { principal.hasTag(\"zone\") && principal.getTag(\"zone\") == \"us\" };",
        "permit (principal, action == Action::\"startComponent\", resource) when { context.max_instances < 5 };",
        "permit (principal, action, resource); forbid (principal, action, resource is Component);",
    ] {
        denies(bad, &admission);
    }
    let unproved = Admission { host: AskingHost { spiffe_id: None, ..admission.host.clone() }, ..admission };
    denies("permit (principal in Workload::\"spiffe://acme.test/host/one\", action, resource);", &unproved);
}

#[test]
fn a_rule_that_needs_a_digest_denies_where_the_reference_pins_none() {
    let exactly = "permit (principal, action, resource) when { resource.image has digest && resource.image.digest == \
                   \"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" };";
    let any = "permit (principal, action, resource); forbid (principal, action, resource) unless { resource.image has digest };";
    for text in [exactly, any] {
        allows(text, &start(PINNED));
        allows(text, &provide(PINNED));
        for unpinned in
            ["ghcr.io/acme/app:1", "ghcr.io/acme/app", "file:///srv/app.wasm", "wasmcloud+builtin://http-client"]
        {
            denies(text, &start(unpinned));
            denies(text, &provide(unpinned));
        }
    }
    denies(exactly, &start(&PINNED.replace("aaa", "bbb")));
}

#[test]
fn providers_and_calls_have_rules_of_their_own() {
    let provider = "permit (principal, action == Action::\"startProvider\", resource == Provider::\"prod/app\");";
    allows(provider, &provide("wasmcloud+builtin://http-client"));
    denies(provider, &start(PINNED));
    let call = "permit (principal, action == Action::\"performInvocation\", resource) when \
                { context.interface like \"wasi:http/*\" && context.function == \"handle\" };";
    allows(call, &serve(PINNED, "wasi:http/incoming-handler@0.2.0", "handle"));
    denies(call, &serve(PINNED, "wasi:http/incoming-handler@0.2.0", "other"));
    denies(call, &start(PINNED));
    let claims = |expired| {
        let claims = ArtifactClaims { public_key: "M".to_owned(), issuer: "AACME".to_owned(), expired };
        let whole = start(PINNED);
        Admission { artifact: Artifact { claims: Some(claims), ..whole.artifact }, ..whole }
    };
    let signed = "permit (principal, action, resource) when \
                  { resource has claims && resource.claims.issuer == \"AACME\" && !resource.claims.expired };";
    allows(signed, &claims(false));
    denies(signed, &claims(true));
    denies(signed, &start(PINNED));
}

#[test]
fn an_error_denies_and_names_its_policy() {
    let text = "permit (principal, action, resource);\n@id(\"sum\") forbid (principal, action == Action::\"startComponent\", resource) \
                when { context.max_instances + 9223372036854775807 < 0 };";
    let verdict = decide(text, &start(PINNED));
    assert_eq!(verdict.summary(), "denied: policy `sum` could not be evaluated");
    allows(text, &provide(PINNED));
}

#[test]
fn verdicts_tell_ids_and_advice_and_trials_only_watch() {
    let text = "permit (principal, action, resource);\n@id(\"frozen\") @advice(\"no starts in december\") \
                forbid (principal, action, resource) when { resource.id == \"app\" };\n\
                @id(\"maybe\") @dry_run forbid (principal, action, resource);";
    let verdict = decide(text, &start(PINNED));
    assert_eq!(verdict.summary(), "denied by policy `frozen` (no starts in december)");
    assert_eq!(verdict.dry_run().len(), 1);
    assert_eq!(verdict.dry_run()[0].outcome, DryRunOutcome::WouldForbid);
}

#[test]
fn which_lattices_policies_are_about_is_known() {
    let about = |text: &str| (with(text).concern("prod"), with(text).concern("dev"));
    assert_eq!(about("permit (principal, action, resource);"), (true, true));
    assert_eq!(about("permit (principal, action, resource is Component);"), (true, true));
    assert_eq!(about("permit (principal, action, resource in Lattice::\"prod\");"), (true, false));
    assert_eq!(about("permit (principal, action, resource is Component in Lattice::\"prod\");"), (true, false));
    assert_eq!(about("permit (principal, action, resource == Provider::\"dev/x\");"), (false, true));
}

#[test]
fn mistakes_are_found_before_a_policy_is_in_force() {
    for (text, expected) in [
        ("permit (principal, action == Action::\"startComponents\", resource);", "startComponents"),
        ("permit (principal == Workload::\"spiffe://a/b\", action, resource);", "never apply"),
        ("permit (principal in Workload::\"acme.test/host\", action, resource);", "not a SPIFFE ID"),
        ("permit (principal, action, resource == Component::\"app\");", "not the name of a component"),
        ("permit (principal, action, resource) when { resource.image.digest == \"x\" };", "digest"),
        ("permit (principal, action, resource) when { principal.getTag(\"zone\") == \"eu\" };", "tag"),
        ("permit (principal, action, resource) when { context.max_instances < 5 };", "max_instances"),
        ("permit (principal, action, resource) when { resource.image.hash == \"x\" };", "hash"),
        ("permit (principal, action == Action::\"startProvider\", resource is Component);", "never apply"),
        ("permit (principal == HostedComponent::\"x\", action, resource);", "HostedComponent"),
        ("permit (principal, action, resource)", ""),
        ("@id(\"a\") permit (principal, action, resource); @id(\"a\") permit (principal, action, resource);", "taken"),
        ("permit (principal == ?principal, action, resource);", "template"),
    ] {
        let problems = AdmissionSet::parse(&[file("a.cedar", text)]).map(drop).expect_err(text);
        assert!(problems.iter().any(|problem| problem.message.contains(expected)), "{text}: {problems:?}");
    }
}

#[test]
fn every_name_of_the_schema_can_be_used() {
    // That it parses is what the rest of this page shows; here that nobody renames in one place alone.
    for name in ["startComponent", "startProvider", "performInvocation", "max_instances", "spiffe_id", "digest"] {
        assert!(ADMISSION_SCHEMA.contains(name), "{name}");
    }
}
