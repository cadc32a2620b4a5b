//! Credentials for members without SVID. `wash`, wadm and stock providers take a token and a seed, or a file of both, and no bare key.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::claims::{Proof, UserClaims};
use super::folder::Material;
use super::key::{Owner, PublicKey, SigningKey};
use super::permissions::PermissionClaims;
use super::token::{self, Claims, TokenRefused};
use crate::atomic_file::{self, Existing};
use crate::clock;

/// A key, and a token that allows nothing: what its holder may do, the broker's settings say.
pub struct Credentials {
    key: PublicKey,
    text: Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Credentials {
    /// New ones, for `name`.
    ///
    /// # Errors
    /// When the name is too long for a token.
    pub fn issue(material: &Material, name: &str, now: SystemTime) -> Result<Self, TokenRefused> {
        let key = SigningKey::generate(Owner::User);
        let user = UserClaims::new(PermissionClaims::nothing(), &material.callout, Proof::Key);
        let about = Claims::about(key.public().as_str(), clock::unix_seconds(now), user);
        let jwt = token::encode(Claims { name: name.to_owned(), ..about }, &material.callout_key)?;
        Ok(Self { key: key.public().clone(), text: text(&jwt, &key) })
    }

    /// What the settings must name.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Writes them, for their owner alone.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        atomic_file::write(path, self.text.as_bytes(), 0o600, Existing::Keep)
    }
}

/// A token and its key, as clients read them.
pub(super) fn text(jwt: &str, key: &SigningKey) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        *key.reveal()
    ))
}
