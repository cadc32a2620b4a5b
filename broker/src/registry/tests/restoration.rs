//! A registry out of a backup: who is a node, who is not, and what stays revoked.

use std::collections::BTreeMap;

use portcullis_identity::{Revoked, SerialNumber};

use super::*;

fn joined(name: &str) -> Registry {
    let mut registry = empty();
    let token = NewToken { node: parse(name), lifetime: Duration::from_secs(60), secret_sha256: [3; 32] };
    execute(&mut registry, Command::CreateToken(token)).unwrap();
    let redemption = Redemption { node: parse(name), secret_sha256: [3; 32], key_sha256: [4; 32] };
    execute(&mut registry, Command::Redeem(redemption)).unwrap();
    registry
}

fn restored(mut registry: Registry, aftermath: &Aftermath) -> Registry {
    let plan = registry.plan_restoration(aftermath, 7, now());
    let version = Version { incarnation: 7, epoch: registry.version().epoch }.next();
    registry.apply(&plan.changes, version, plan.schema);
    registry
}

fn fates<const N: usize>(fates: [(&str, Fate); N]) -> Aftermath {
    Aftermath { nodes: fates.map(|(name, fate)| (parse(name), fate)).into_iter().collect(), ..Aftermath::default() }
}

fn standing(registry: &Registry, name: &str) -> Option<Standing> {
    registry.node(&parse(name)).map(|node| node.standing)
}

#[test]
fn the_bundle_has_a_number_above_all_before_and_names_are_not_used_again() {
    let registry = restored(joined("n"), &Aftermath::default());
    assert_eq!((registry.version().incarnation, registry.bundle().sequence), (7, (7 << 32) + 1));
    assert_eq!(standing(&registry, "n"), Some(Standing::Good));
}

#[test]
fn who_joined_is_a_node_and_who_was_shut_out_is_not() {
    let at = now() - Duration::from_secs(100);
    let join = Fate::Joined { at, by: JoinedBy::Token, key_sha256: [9; 32] };
    let registry = restored(
        joined("n"),
        &fates([
            ("late", join),
            ("n", Fate::Removed),
            ("gone", Fate::Removed),
            ("doubtful", Fate::ShutOut(Standing::Quarantined)),
            ("barred", Fate::ShutOut(Standing::Barred)),
            ("again", Fate::Rejoined),
        ]),
    );
    let late = registry.node(&parse("late")).unwrap();
    assert_eq!((late.standing, late.key_sha256, late.joined_by), (Standing::Good, [9; 32], JoinedBy::Token));
    assert!(late.since < at, "its first certificate is backdated");
    for name in ["n", "gone", "doubtful", "again"] {
        assert_eq!(standing(&registry, name), None, "{name}");
    }
    assert_eq!(standing(&registry, "barred"), Some(Standing::Barred), "its certificate would let it in again");
    let quarantined = restored(joined("n"), &fates([("n", Fate::ShutOut(Standing::Quarantined))]));
    assert_eq!(standing(&quarantined, "n"), Some(Standing::Quarantined));
    let freed = restored(quarantined, &fates([("n", join)]));
    assert_eq!(standing(&freed, "n"), Some(Standing::Good));
}

#[test]
fn a_token_that_nobody_redeemed_is_void() {
    let mut registry = joined("n");
    let token = NewToken { node: parse("m"), lifetime: Duration::from_secs(60), secret_sha256: [5; 32] };
    execute(&mut registry, Command::CreateToken(token)).unwrap();
    let mut registry = restored(registry, &Aftermath::default());
    let redeem = |node, secret: u8, key: u8| {
        Command::Redeem(Redemption { node: parse(node), secret_sha256: [secret; 32], key_sha256: [key; 32] })
    };
    execute(&mut registry, redeem("m", 5, 6)).unwrap_err();
    execute(&mut registry, redeem("n", 3, 4)).expect("a lost answer is asked for again");
    execute(&mut registry, redeem("n", 3, 5)).expect_err("a spent one stays spent");
}

#[test]
fn what_was_revoked_is_revoked_until_it_would_have_been_over() {
    let serial = |number: u8| Revoked::Certificate(SerialNumber::new(&[number]).unwrap());
    let id = Revoked::Identity(id("spiffe://acme.test/x"));
    let day = Duration::from_secs(24 * 3600);
    let revocations = vec![(serial(1), now() - day * 40), (serial(2), now() - day * 20), (id.clone(), now() - day / 2)];
    let registry = restored(joined("n"), &Aftermath { nodes: BTreeMap::new(), revocations });
    let kept: Vec<_> = registry.revocations().keys().cloned().collect();
    assert!(kept.contains(&serial(2)) && kept.contains(&id) && kept.len() == 2, "{kept:?}");
    assert_eq!(registry.revocations()[&id].issued_until, now() - day / 2);
}
