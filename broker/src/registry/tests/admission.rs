//! Policies that say what hosts may start: files like the others, in force beside them.

use super::*;

const START: &str = "@id(\"start\") permit (principal, action == Action::\"startComponent\", resource);";

fn put(name: &str, text: &str) -> Command {
    Command::PutAdmissions(vec![file(name, text)])
}

#[test]
fn they_come_into_force_whole_and_go_again() {
    let mut registry = empty();
    let before = Arc::clone(registry.admissions());
    assert!(before.is_empty());
    execute(&mut registry, put("hosts.cedar", START)).unwrap();
    assert!(!Arc::ptr_eq(&before, registry.admissions()));
    assert_eq!((registry.admissions().len(), registry.policy_count(), registry.policies().len()), (1, 1, 0));
    // Nothing changes where the file is the same, or something else does.
    let held = Arc::clone(registry.admissions());
    execute(&mut registry, put("hosts.cedar", START)).unwrap();
    execute(&mut registry, register("prod/billing", None)).unwrap();
    execute(&mut registry, Command::PutPolicies(vec![file("a.cedar", PERMIT)])).unwrap();
    assert!(Arc::ptr_eq(&held, registry.admissions()));
    execute(&mut registry, Command::RemovePolicies("hosts.cedar".to_owned())).unwrap();
    assert!(registry.admissions().is_empty());
    let gone = execute(&mut registry, Command::RemovePolicies("hosts.cedar".to_owned()));
    assert!(matches!(gone, Err(Refusal::NoPolicyFile(_))));
}

#[test]
fn mistakes_and_ids_that_are_taken_change_nothing() {
    let mut registry = empty();
    execute(&mut registry, put("hosts.cedar", START)).unwrap();
    for text in [START, "permit (principal, action, resource) when { resource.image.digest == \"x\" };"] {
        let refused = execute(&mut registry, put("more.cedar", text));
        assert!(matches!(refused, Err(Refusal::Policies(_))), "{refused:?}");
    }
    assert_eq!(registry.admission_files().len(), 1);
    // A policy may move from one file to another.
    let moved = vec![file("hosts.cedar", ""), file("more.cedar", START)];
    execute(&mut registry, Command::PutAdmissions(moved)).unwrap();
    assert_eq!(registry.admissions().len(), 1);
}

#[test]
fn a_name_is_of_one_kind() {
    let mut registry = with([register("prod/billing", None), Command::PutPolicies(vec![file("a.cedar", PERMIT)])]);
    assert!(matches!(execute(&mut registry, put("a.cedar", START)), Err(Refusal::OtherKind(_))));
    execute(&mut registry, put("hosts.cedar", START)).unwrap();
    let other = execute(&mut registry, Command::PutPolicies(vec![file("hosts.cedar", PERMIT)]));
    assert!(matches!(other, Err(Refusal::OtherKind(_))));
}
