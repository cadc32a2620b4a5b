//! How much the registry holds (D12). Reaching a bound is a refusal with its name.

use super::refusal::Refusal;

/// Virtual components.
pub(super) const COMPONENTS: usize = 10_000;
/// Registration entries.
pub(super) const ENTRIES: usize = 100_000;
/// Entries that one template makes: what is attested comes back, or does not belong into an ID.
pub(super) const FILLED: usize = 256;
/// Templates of one node: it tries each of them on every workload.
pub(super) const TEMPLATES: usize = 64;
/// Entries made by one command.
pub(super) const ENTRIES_AT_ONCE: usize = 1000;
/// Join tokens, spent and expired ones of the last day included.
pub(super) const TOKENS: usize = 100_000;
/// Authorities of one kind, old ones included: each is in every node's bundle.
pub(super) const AUTHORITIES: usize = 8;
/// Revocations, which every node holds.
pub(super) const REVOCATIONS: usize = 10_000;
/// Policy files.
pub(super) const POLICY_FILES: usize = 20_000;
/// Foreign trust domains.
pub(super) const DOMAINS: usize = 256;
/// Grants on one component.
pub(super) const GRANTS: usize = 10_000;
/// Interfaces of one component.
pub(super) const INTERFACES: usize = 64;
/// Files in one WIT folder.
pub(super) const WIT_FILES: usize = 256;
/// Bytes of one WIT folder.
pub(super) const WIT_BYTES: usize = 2 << 20;
/// Bytes of one policy file.
pub(super) const POLICY_FILE_BYTES: usize = 1 << 20;
/// Addresses that one node announces for one component.
pub(super) const ADDRESSES: usize = 8;

/// Refuses `count` above `limit`.
pub(super) fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), Refusal> {
    if count > limit { Err(Refusal::TooMany { what, limit }) } else { Ok(()) }
}

/// Refuses `bytes` above `limit`.
pub(super) fn no_larger(what: &'static str, bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes > limit { Err(Refusal::TooLarge { what, bytes, limit }) } else { Ok(()) }
}
