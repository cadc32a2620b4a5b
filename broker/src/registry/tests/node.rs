//! Rejoining: which certificate lets its node back in, and what a second holder does to it.

use super::*;

const DAY: u64 = 24 * 3600;

fn at(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

/// A node that joined at the beginning and proved a certificate that was issued at `issued`.
fn node(issued: u64) -> Registry {
    let mut registry = empty();
    let token = NewToken { node: parse("n"), lifetime: Duration::from_secs(60), secret_sha256: [3; 32] };
    execute(&mut registry, Command::CreateToken(token)).unwrap();
    let redemption = Redemption { node: parse("n"), secret_sha256: [3; 32], key_sha256: [4; 32] };
    execute(&mut registry, Command::Redeem(redemption)).unwrap();
    let sighting = Sighting { node: parse("n"), not_before: at(issued) };
    execute_at(&mut registry, Command::Sight(sighting), at(issued)).unwrap();
    registry
}

/// With a certificate of one hour.
fn rejoin(registry: &mut Registry, issued: u64, key: u8, when: u64) -> Result<Plan, Refusal> {
    let rejoining = Rejoining {
        node: parse("n"),
        serial: issued.to_be_bytes().to_vec(),
        not_before: at(issued),
        not_after: at(issued + 3600),
        key_sha256: [key; 32],
    };
    execute_at(registry, Command::Rejoin(Box::new(rejoining)), at(when))
}

fn standing(registry: &Registry) -> Standing {
    registry.node(&parse("n")).unwrap().standing
}

fn refusal(result: Result<Plan, Refusal>) -> RejoinRefusal {
    match result {
        Err(Refusal::Rejoin(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_certificate_lets_its_node_back_in_within_the_time_of_grace() {
    assert_eq!(rejoin(&mut node(100), 100, 1, 100 + 3600 + 30 * DAY - 1).unwrap().changes.len(), 1);
    assert_eq!(refusal(rejoin(&mut node(100), 100, 1, 100 + 3600 + 30 * DAY)), RejoinRefusal::TooLate);
    // Issued, and lost on the way or never used: it is no older than the last one used.
    rejoin(&mut node(100), 500, 1, 2 * DAY).unwrap();
}

#[test]
fn a_lost_reply_is_asked_for_again_with_the_same_key() {
    let mut registry = node(100);
    rejoin(&mut registry, 100, 1, DAY).unwrap();
    assert!(rejoin(&mut registry, 100, 1, DAY + 5).unwrap().changes.is_empty());
    assert_eq!(standing(&registry), Standing::Good);
    let sighting = Sighting { node: parse("n"), not_before: at(DAY) };
    execute_at(&mut registry, Command::Sight(sighting), at(DAY + 10)).unwrap();
    // It came: who asks once more is late, or repeats what he overheard.
    assert_eq!(refusal(rejoin(&mut registry, 100, 1, DAY + 20)), RejoinRefusal::Superseded);
}

#[test]
fn two_holders_of_one_certificate_are_both_shut_out_until_a_new_token() {
    let mut registry = node(100);
    rejoin(&mut registry, 100, 1, DAY).unwrap();
    let sighting = Sighting { node: parse("n"), not_before: at(DAY) };
    execute_at(&mut registry, Command::Sight(sighting), at(DAY + 10)).unwrap();
    assert_eq!(rejoin(&mut registry, 100, 2, DAY + 20).unwrap().changes.len(), 1);
    assert_eq!(standing(&registry), Standing::Quarantined);
    for (issued, key) in [(100, 1), (100, 2), (DAY, 3)] {
        assert_eq!(refusal(rejoin(&mut registry, issued, key, 2 * DAY)), RejoinRefusal::Quarantined);
    }
    let token = NewToken { node: parse("n"), lifetime: Duration::from_secs(60), secret_sha256: [5; 32] };
    execute_at(&mut registry, Command::CreateToken(token), at(3 * DAY)).unwrap();
    let redemption = Redemption { node: parse("n"), secret_sha256: [5; 32], key_sha256: [6; 32] };
    execute_at(&mut registry, Command::Redeem(redemption), at(3 * DAY)).unwrap();
    assert_eq!(standing(&registry), Standing::Good);
    // Nothing from before the new token counts.
    for (issued, key) in [(100, 1), (DAY, 3), (3 * DAY - 11, 4)] {
        assert_eq!(refusal(rejoin(&mut registry, issued, key, 3 * DAY + 5)), RejoinRefusal::Superseded);
    }
}

#[test]
fn an_old_certificate_neither_comes_back_nor_harms_the_node() {
    let mut registry = node(100);
    let sighting = Sighting { node: parse("n"), not_before: at(2000) };
    execute_at(&mut registry, Command::Sight(sighting), at(2000)).unwrap();
    assert_eq!(refusal(rejoin(&mut registry, 100, 1, DAY)), RejoinRefusal::Superseded);
    assert_eq!(standing(&registry), Standing::Good);
    rejoin(&mut registry, 2000, 2, DAY).unwrap();
}

#[test]
fn a_node_that_was_removed_does_not_come_back() {
    let mut registry = node(100);
    execute(&mut registry, Command::RemoveNode(parse("n"))).unwrap();
    assert_eq!(refusal(rejoin(&mut registry, 100, 1, DAY)), RejoinRefusal::NotRegistered);
}
