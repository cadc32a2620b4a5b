//! The accounts of a set-up, as its operator signs them.

use serde_json::json;

use super::{Keys, SetUpError};
use crate::nats::key::{PublicKey, SigningKey};
use crate::nats::token::{self, Claims};

/// The part of both servers' configurations that says who the accounts are.
pub(super) fn conf(
    name: &str,
    keys: &Keys,
    sentinel: &str,
    (callout_user, now): (&PublicKey, u64),
) -> Result<String, SetUpError> {
    let named = |name: &str, key: &SigningKey, nats| Claims {
        name: name.to_owned(),
        ..Claims::about(key.public().as_str(), now, nats)
    };
    let operator = json!({"system_account": keys.system.public().as_str(), "type": "operator", "version": 2});
    let operator = token::encode(named(name, &keys.operator, operator), &keys.operator)?;
    let system = account(&[], &json!({}), json!({}));
    let callout = json!({
        "auth_users": [callout_user.as_str()],
        "allowed_accounts": [keys.lattice.public().as_str()],
        "xkey": keys.seal.public(),
    });
    let callout = account(&[&keys.callout_signing], &callout, json!({}));
    let storage = json!({"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let lattice = account(&[&keys.lattice_signing], &json!({}), storage);
    let mut preload = String::new();
    for (name, key, claims) in
        [("SYS", &keys.system, system), ("AUTH", &keys.callout, callout), ("LATTICE", &keys.lattice, lattice)]
    {
        let token = token::encode(named(name, key, claims), &keys.operator)?;
        preload.push_str(&format!("  {}: {token}\n", key.public()));
    }
    Ok(format!(
        "# Written by `portcullis-broker nats init`. Nothing here is secret.\n\
         operator: {operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{preload}}}\n\
         # A client without credentials of its own is asked about with these, which allow nothing.\ndefault_sentinel: {sentinel}\n",
        keys.system.public(),
    ))
}

fn account(
    signing_keys: &[&SigningKey],
    authorization: &serde_json::Value,
    storage: serde_json::Value,
) -> serde_json::Value {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": 0,
    });
    if let (Some(limits), serde_json::Value::Object(storage)) = (limits.as_object_mut(), storage) {
        limits.extend(storage);
    }
    let signing_keys: Vec<_> = signing_keys.iter().map(|key| key.public().as_str()).collect();
    json!({
        "limits": limits, "signing_keys": signing_keys, "authorization": authorization,
        "default_permissions": {"pub": {}, "sub": {}}, "type": "account", "version": 2,
    })
}
