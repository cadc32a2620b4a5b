//! The table itself: complete, true about where each thing is shown, and run.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::blackbox::CHECKS;
use crate::ours::known_entries;
use crate::regressions::HISTORY;
use crate::rows::{ROWS, Row, Shown};
use crate::socket::{Socket, VARIABLE};

/// The rows that a check covers.
fn covered_by(check: &str) -> Vec<u16> {
    ROWS.iter().filter(|row| row.shown.contains(&Shown::Check(name_of(check)))).map(|row| row.number).collect()
}

/// The name as it stands in the table of checks.
fn name_of(check: &str) -> &'static str {
    CHECKS.iter().find(|(name, _)| *name == check).map(|(name, _)| *name).unwrap()
}

#[test]
fn every_check_holds_at_the_socket() {
    let foreign = Socket::of_environment();
    let lab = foreign.is_none().then(known_entries);
    let socket = foreign.or_else(|| lab.as_ref().map(|(_, agent)| Socket::at(&agent.socket))).unwrap();
    println!("{VARIABLE} is {}", if lab.is_some() { "not set: a broker and an agent of ours" } else { "set" });
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let holds = catch_unwind(AssertUnwindSafe(|| check(&socket))).is_ok();
        println!("{} {name}: rows {:?}", if holds { "ok    " } else { "FAILED" }, covered_by(name));
        if !holds {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} of {} checks failed: {failed:?}", failed.len(), CHECKS.len());
}

/// Whether a file has a test of that name, which runs.
fn has_test(file: &str, name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    }) else {
        return false;
    };
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    let attributes: Vec<_> = above.filter(|line| line.starts_with("#[")).collect();
    let is_test = attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    is_test && !attributes.iter().any(|line| line.starts_with("#[ignore"))
}

/// What is claimed exists, and a reason for nothing stands alone.
fn judge(what: &str, shown: &[Shown]) {
    assert!(!shown.is_empty(), "{what}: nothing is said of it");
    for one in shown {
        match one {
            Shown::Check(name) => {
                assert!(CHECKS.iter().any(|(check, _)| check == name), "{what}: there is no check `{name}`");
            }
            Shown::Test(file, name) => assert!(has_test(file, name), "{what}: {file} has no test `{name}`"),
            Shown::Not(reason) => assert!(shown.len() == 1 && !reason.is_empty(), "{what}: shown, and not shown"),
        }
    }
}

#[test]
fn the_table_names_every_row_once_and_tests_that_exist() {
    assert_eq!(ROWS.iter().map(|row| row.number).collect::<Vec<_>>(), (1..=168).collect::<Vec<_>>());
    for row in ROWS {
        judge(&format!("row {} ({} {})", row.number, row.level, row.section), row.shown);
        assert!(!row.requirement.is_empty());
    }
    for (name, _) in CHECKS {
        assert!(!covered_by(name).is_empty(), "`{name}` shows no row");
    }
    assert_eq!(CHECKS.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), CHECKS.len());

    let has = |row: &Row, wanted: fn(&Shown) -> bool| row.shown.iter().any(wanted);
    let black_box = |row: &&Row| has(row, |shown| matches!(shown, Shown::Check(_)));
    let not = |row: &&Row| has(row, |shown| matches!(shown, Shown::Not(_)));
    let mut reasons: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for row in ROWS.iter().filter(not) {
        let [Shown::Not(reason)] = row.shown else { unreachable!() };
        reasons.entry(reason).or_default().push(row.number);
    }
    let (seen, none) = (ROWS.iter().filter(black_box).count(), ROWS.iter().filter(not).count());
    println!("{} rows: {seen} at any socket, {} elsewhere, {none} not covered", ROWS.len(), ROWS.len() - seen - none);
    for (reason, rows) in reasons {
        println!("  not covered, {reason}: {rows:?}");
    }
}

#[test]
fn every_line_of_the_security_history_has_a_test_or_a_reason() {
    for line in HISTORY {
        judge(&format!("{} ({})", line.defect, line.fixed), line.shown);
    }
    let not = HISTORY.iter().filter(|line| matches!(line.shown, [Shown::Not(_)]));
    println!("{} past defects, {} of them impossible by construction or not offered", HISTORY.len(), not.count());
}
