//! What the tokens of an auth callout say (nats-io/jwt v2), request, answer and user; and those of operators and accounts, which
//! `nats init` writes.

use serde::{Deserialize, Serialize};

use super::key::{CurveKey, Owner, PublicKey, SealingKey, SigningKey};
use super::permissions::PermissionClaims;
use super::token::{self, Claims, TokenRefused};

/// `aud` of every request.
const REQUEST_AUDIENCE: &str = "nats-authorization-request";
/// Certificates of one chain that are looked at; the last may be the authority itself.
const MAX_CHAIN: usize = 8;
/// Bytes of a name that a client chose, as far as it is told.
const MAX_TOLD: usize = 128;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// It is no token of a server.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// It is a token of another kind.
    #[error("it is not an authorization request")]
    Kind,
    /// Another server signed it than it is about.
    #[error("it is not from the server that it names")]
    OtherServer,
    /// It is not about our account.
    #[error("it is about another account")]
    OtherAccount,
    /// The server does not wait for an answer any more.
    #[error("it has expired")]
    Expired,
    /// The key that the server made for this login is none.
    #[error("its user key is none")]
    UserKey,
    /// It names no key to seal the answer for, or another than it came with.
    #[error("its server's curve key is missing or another one")]
    CurveKey,
    /// More certificates than anybody needs.
    #[error("its chain has more than {MAX_CHAIN} certificates")]
    Chain,
}

/// A server's question: who is this, and what may it do?
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// The server that asks.
    pub server: PublicKey,
    /// Its name.
    pub server_name: String,
    /// What it opens the answer with.
    pub seal: CurveKey,
    /// Stands for the client in this login; the answer must be about it.
    pub user: PublicKey,
    /// The client.
    pub client: Client,
}

/// A client as its server describes it.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The connection's number on the server.
    pub number: u64,
    /// From where.
    pub address: String,
    /// Its name for itself, cut.
    pub name: String,
    /// What the server had the client sign.
    pub nonce: String,
    /// What it showed.
    pub shown: Shown,
}

/// What a client showed in its `CONNECT`, and in the handshake before.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// `auth_token`
    pub token: String,
    /// `jwt`
    pub jwt: String,
    /// `nkey`
    pub nkey: String,
    /// `sig`: over the nonce.
    pub signature: String,
    /// The chain that the server verified, leaf first, PEM.
    pub chain: Vec<String>,
}

#[derive(Deserialize)]
struct RequestWire {
    server_id: ServerWire,
    user_nkey: String,
    #[serde(default)]
    client_info: ClientWire,
    #[serde(default)]
    connect_opts: ConnectWire,
    #[serde(default)]
    client_tls: Option<TlsWire>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct ServerWire {
    #[serde(default)]
    name: String,
    id: String,
    #[serde(default)]
    xkey: String,
}

#[derive(Default, Deserialize)]
struct ClientWire {
    #[serde(default)]
    host: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    nonce: String,
}

#[derive(Default, Deserialize)]
struct ConnectWire {
    #[serde(default)]
    jwt: String,
    #[serde(default)]
    nkey: String,
    #[serde(default)]
    sig: String,
    #[serde(default)]
    auth_token: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct TlsWire {
    #[serde(default)]
    verified_chains: Vec<Vec<String>>,
}

impl LoginRequest {
    /// Reads a request about `account` that came with the curve key `seal`, at the moment `now`.
    ///
    /// # Errors
    /// [`RequestRefused`] names the first rule that is broken.
    pub fn parse(text: &str, account: &PublicKey, seal: &str, now: u64) -> Result<Self, RequestRefused> {
        let (server, claims) = token::decode::<RequestWire>(text, Owner::Server)?;
        let Claims { aud, exp, jti: _, iat: _, iss: _, name: _, nbf: _, sub, nats } = claims;
        let RequestWire { server_id, user_nkey, client_info, connect_opts, client_tls, kind } = nats;
        if kind != "authorization_request" || aud != REQUEST_AUDIENCE {
            return Err(RequestRefused::Kind);
        }
        if server_id.id != server.as_str() {
            return Err(RequestRefused::OtherServer);
        }
        if sub != account.as_str() {
            return Err(RequestRefused::OtherAccount);
        }
        if exp < now {
            return Err(RequestRefused::Expired);
        }
        if server_id.xkey != seal {
            return Err(RequestRefused::CurveKey);
        }
        let chain = client_tls.and_then(|tls| tls.verified_chains.into_iter().next()).unwrap_or_default();
        if chain.len() > MAX_CHAIN {
            return Err(RequestRefused::Chain);
        }
        let ClientWire { host, id, name, nonce } = client_info;
        let ConnectWire { jwt, nkey, sig, auth_token, name: also_name } = connect_opts;
        let name = if name.is_empty() { also_name } else { name };
        Ok(Self {
            server,
            server_name: told(&server_id.name),
            seal: seal.parse().map_err(|_| RequestRefused::CurveKey)?,
            user: PublicKey::parse(Owner::User, &user_nkey).map_err(|_| RequestRefused::UserKey)?,
            client: Client {
                number: id,
                address: told(&host),
                name: told(&name),
                nonce,
                shown: Shown { token: auth_token, jwt, nkey, signature: sig, chain },
            },
        })
    }
}

fn told(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_TOLD).collect()
}

/// A user of an account: what it may do, and until when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserClaims {
    #[serde(flatten)]
    permissions: PermissionClaims,
    subs: i64,
    data: i64,
    payload: i64,
    /// No WebSocket, no MQTT, no leaf node.
    #[serde(default)]
    allowed_connection_types: Vec<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    bearer_token: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    issuer_account: String,
    #[serde(rename = "type")]
    kind: String,
    version: u8,
}

/// Whether whoever has a user's token must prove its key too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By a signature over the server's nonce.
    Key,
    /// The token is enough: only for one that allows nothing.
    Bearer,
}

impl UserClaims {
    /// A user with these permissions in `account`, whose signing key will sign this.
    #[must_use]
    pub fn new(permissions: PermissionClaims, account: &PublicKey, proof: Proof) -> Self {
        Self {
            permissions,
            subs: -1,
            data: -1,
            payload: -1,
            allowed_connection_types: vec!["STANDARD".to_owned()],
            bearer_token: proof == Proof::Bearer,
            issuer_account: account.as_str().to_owned(),
            kind: "user".to_owned(),
            version: 2,
        }
    }

    /// The same, to be signed by the account itself.
    #[must_use]
    pub fn signed_by_account(mut self) -> Self {
        self.issuer_account.clear();
        self
    }

    /// The account, where a signing key and not the account itself signed.
    #[must_use]
    pub fn issuer_account(&self) -> &str {
        &self.issuer_account
    }

    /// Whether it is one that anybody may use.
    #[must_use]
    pub fn is_bearer(&self) -> bool {
        self.bearer_token
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ResponseWire {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jwt: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    error: String,
    issuer_account: String,
    #[serde(rename = "type")]
    kind: String,
    version: u8,
}

/// What a login is answered with.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// The user's token.
    Admitted(&'a str),
    /// Why not. The server logs it; the client is told no more than that it is not authorised.
    Refused(&'a str),
}

/// The answer to `request`, signed by `key` for `account` and sealed for the server that asked.
///
/// # Errors
/// When it would be too long.
pub fn respond(
    request: &LoginRequest,
    answer: Answer<'_>,
    (account, key, seal): (&PublicKey, &SigningKey, &SealingKey),
    now: u64,
) -> Result<Vec<u8>, TokenRefused> {
    let (jwt, error) = match answer {
        Answer::Admitted(jwt) => (jwt.to_owned(), String::new()),
        Answer::Refused(reason) => (String::new(), reason.to_owned()),
    };
    let nats = ResponseWire {
        jwt,
        error,
        issuer_account: account.as_str().to_owned(),
        kind: "authorization_response".to_owned(),
        version: 2,
    };
    let aud = request.server.as_str().to_owned();
    let claims = Claims { aud, ..Claims::about(request.user.as_str(), now, nats) };
    let token = token::encode(claims, key)?;
    seal.seal(token.as_bytes(), &request.seal).ok_or(TokenRefused::Signature)
}

#[cfg(test)]
mod tests;
