//! From WIT to what policy knows of a component: its functions, and which of their parameters a policy can read.

use portcullis_identity::Target;
use portcullis_policy::{Component, Interface, ParamsReadable};
use portcullis_value::{Wit, WitSource};

use super::record::Upstream;
use super::refusal::Refusal;

/// Reads the interfaces of `wit` that are `wanted`; every exported one where `wanted` is empty.
pub(super) fn read(
    target: &Target,
    upstream: Upstream,
    wit: &[WitSource],
    wanted: &[String],
) -> Result<Component, Refusal> {
    let wit = Wit::parse(wit)?;
    let mut interfaces = Vec::new();
    for interface in wit.interfaces() {
        if wanted.is_empty() || wanted.contains(&interface.name) {
            interfaces.push(Interface::from(interface));
        }
    }
    if let Some(missing) = wanted.iter().find(|name| interfaces.iter().all(|interface| interface.name != **name)) {
        let exported: Vec<_> = wit.interfaces().map(|interface| format!("`{}`", interface.name)).collect();
        return Err(Refusal::UnknownInterface { wanted: missing.clone(), exported: exported.join(", ") });
    }
    if interfaces.is_empty() {
        return Err(Refusal::NoInterface);
    }
    let params = match upstream {
        Upstream::Typed => ParamsReadable::Decoded,
        Upstream::Splice => ParamsReadable::Opaque,
    };
    Ok(Component { lattice: target.lattice.to_string(), id: target.id.to_string(), interfaces, params })
}
