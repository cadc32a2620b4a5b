//! What lies on disk: one protobuf message per kind of record. A set of types of its own, so that neither the wire nor the registry
//! decides what old data folders mean. Numbers are never used again.

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Meta {
    /// The layout of all records; raised when an older broker must not open a newer folder.
    #[prost(uint32, tag = "1")]
    pub(super) layout: u32,
    #[prost(string, tag = "2")]
    pub(super) trust_domain: String,
    #[prost(uint64, tag = "3")]
    pub(super) incarnation: u64,
    #[prost(uint64, tag = "4")]
    pub(super) epoch: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Component {
    #[prost(string, tag = "1")]
    pub(super) target: String,
    #[prost(string, tag = "2")]
    pub(super) spiffe_id: String,
    #[prost(enumeration = "Upstream", tag = "3")]
    pub(super) upstream: i32,
    #[prost(message, repeated, tag = "4")]
    pub(super) wit: Vec<WitFile>,
    #[prost(string, repeated, tag = "5")]
    pub(super) interfaces: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub(super) addresses: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Upstream {
    Unspecified = 0,
    Typed = 1,
    Splice = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WitFile {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) spiffe_id: String,
    #[prost(string, tag = "3")]
    pub(super) node: String,
    #[prost(string, tag = "4")]
    pub(super) digest: String,
    #[prost(bool, tag = "5")]
    pub(super) danger_any_digest: bool,
    #[prost(uint32, tag = "6")]
    pub(super) ttl_seconds: u32,
    #[prost(string, tag = "7")]
    pub(super) lattice: String,
    #[prost(string, repeated, tag = "8")]
    pub(super) selectors: Vec<String>,
    /// 0: made before there were any, the default.
    #[prost(uint32, tag = "9")]
    pub(super) jwt_ttl_seconds: u32,
    #[prost(string, tag = "10")]
    pub(super) hint: String,
    #[prost(string, repeated, tag = "11")]
    pub(super) dns_names: Vec<String>,
    #[prost(string, repeated, tag = "12")]
    pub(super) federates_with: Vec<String>,
    #[prost(bool, tag = "13")]
    pub(super) admin: bool,
    #[prost(uint64, tag = "14")]
    pub(super) created_at: u64,
    /// Which template made it; empty: an operator.
    #[prost(string, tag = "15")]
    pub(super) template: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) joined_at: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key_sha256: Vec<u8>,
    /// 0: good, 1: quarantined, 2: barred.
    #[prost(uint32, tag = "4")]
    pub(super) standing: u32,
    #[prost(uint64, tag = "5")]
    pub(super) since: u64,
    #[prost(uint64, tag = "6")]
    pub(super) newest: u64,
    #[prost(message, repeated, tag = "7")]
    pub(super) spent: Vec<Spent>,
    /// Otherwise by token.
    #[prost(bool, tag = "8")]
    pub(super) by_certificate: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Spent {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) serial: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key_sha256: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) until: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Token {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) index: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) tag: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) node: String,
    #[prost(uint64, tag = "4")]
    pub(super) expires_at: u64,
    /// Empty: not redeemed.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) redeemed_by: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Policies {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Grant {
    #[prost(string, tag = "1")]
    pub(super) target: String,
    #[prost(string, tag = "2")]
    pub(super) spiffe_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Domain {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// Empty: its bundle came from a file.
    #[prost(string, tag = "2")]
    pub(super) url: String,
    /// Empty: the endpoint proves itself by a certificate of the web.
    #[prost(string, tag = "3")]
    pub(super) endpoint_id: String,
    /// The bundle document as it came; empty: there is none yet.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bundle: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub(super) received_at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Addresses {
    #[prost(string, tag = "1")]
    pub(super) target: String,
    #[prost(string, tag = "2")]
    pub(super) node: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) addresses: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Authority {
    #[prost(enumeration = "Stage", tag = "1")]
    pub(super) stage: i32,
    #[prost(bool, tag = "2")]
    pub(super) tainted: bool,
    #[prost(uint64, tag = "3")]
    pub(super) not_before: u64,
    #[prost(uint64, tag = "4")]
    pub(super) not_after: u64,
    #[prost(uint64, tag = "5")]
    pub(super) published_incarnation: u64,
    #[prost(uint64, tag = "6")]
    pub(super) published_epoch: u64,
    /// DER; empty for a key that signs tokens.
    #[prost(bytes = "vec", tag = "7")]
    pub(super) root: Vec<u8>,
    /// DER; empty where the root is our own.
    #[prost(bytes = "vec", tag = "8")]
    pub(super) signing: Vec<u8>,
    #[prost(string, tag = "9")]
    pub(super) kid: String,
    /// SubjectPublicKeyInfo, DER; empty for an X.509 authority.
    #[prost(bytes = "vec", tag = "10")]
    pub(super) public_key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Stage {
    Unspecified = 0,
    Prepared = 1,
    Active = 2,
    Old = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Bundle {
    #[prost(uint64, tag = "1")]
    pub(super) sequence: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Revocation {
    /// Of a certificate; else empty.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) serial: Vec<u8>,
    /// Of an identity; else empty.
    #[prost(string, tag = "2")]
    pub(super) spiffe_id: String,
    #[prost(uint64, tag = "3")]
    pub(super) issued_until: u64,
    #[prost(uint64, tag = "4")]
    pub(super) until: u64,
}
