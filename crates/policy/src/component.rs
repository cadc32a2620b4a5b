//! What policy has to know of a virtual component: its names, its functions, and which parameters can be read.

/// A registered virtual component, as the schema needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The lattice it lives in.
    pub lattice: String,
    /// Its id within the lattice.
    pub id: String,
    /// What it serves.
    pub interfaces: Vec<Interface>,
    /// Whether its sidecar decodes parameters.
    pub params: ParamsReadable,
}

/// The one component that an [`Engine`](crate::Engine) decides for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentFacts {
    /// The lattice it lives in.
    pub lattice: String,
    /// Its id within the lattice.
    pub id: String,
    /// What it serves.
    pub interfaces: Vec<Interface>,
    /// SPIFFE IDs granted on it: `resource.grants` in a policy.
    pub grants: Vec<String>,
}

/// An interface that a component serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The wRPC instance name, `namespace:package/interface@version`.
    pub name: String,
    /// Its functions.
    pub functions: Vec<Function>,
}

/// A function of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The wRPC function name.
    pub name: String,
    /// Its parameters under their WIT names, in order.
    pub params: Vec<(String, ParamType)>,
}

/// What a policy sees of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParamType {
    /// WIT `bool`.
    Bool,
    /// WIT `s8`..`s64` and `u8`..`u64`. Cedar's Long is an `i64`: a call with a larger `u64` is denied where a policy reads it.
    Long,
    /// WIT `string`, `char` (one character) or `enum` (the name of the case).
    String,
    /// WIT `option<bool>`: an attribute that may be absent.
    OptionalBool,
    /// WIT `option` of an integer.
    OptionalLong,
    /// WIT `option` of a `string`, `char` or `enum`.
    OptionalString,
    /// Every other type: no attribute at all.
    Unreadable,
}

/// Whether a component's sidecar decodes the parameters of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParamsReadable {
    /// Parameters are decoded by WIT before the decision.
    Decoded,
    /// Bytes pass untouched (splice): a policy that reads a parameter is refused.
    Opaque,
}
