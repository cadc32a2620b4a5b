use std::{fmt, future::Future, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};

use super::{inbox::InboxPrefix, limits::NatsLimits};

/// The first pause before connecting again; it doubles from attempt to attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Where a NATS server listens: `nats://host:port`, or `tls://host:port` where nothing is said in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatsServer(ServerAddr);

/// A text is no [`NatsServer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServer {
    /// No URL with a host.
    #[error("`{0}` is no address of a nats server, expected `nats://host:port` or `tls://host:port`")]
    Url(String),
    /// A user name or password in a URL ends in logs.
    #[error("address of a nats server holds credentials: name them apart")]
    Credentials,
}

impl FromStr for NatsServer {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let address: ServerAddr = text.parse().map_err(|_| InvalidServer::Url(text.to_owned()))?;
        if address.has_user_pass() || address.username().is_some() {
            return Err(InvalidServer::Credentials);
        }
        if !matches!(address.scheme(), "nats" | "tls") || address.host().is_empty() {
            return Err(InvalidServer::Url(text.to_owned()));
        }
        Ok(Self(address))
    }
}

/// How to secure the connection to the server.
#[derive(Clone, Debug)]
pub enum NatsTls {
    /// Not at all: on the same machine, or in tests.
    DangerPlain,
    /// With a configuration as [`client_config`](portcullis_identity::client_config) makes it: it presents what the slot
    /// holds at each attempt, and verifies the server by our bundles.
    Upgrade(Arc<rustls::ClientConfig>),
    /// The same, before the server says anything (`handshake_first` in its configuration).
    First(Arc<rustls::ClientConfig>),
}

/// Gives a token for each attempt to connect: one that expires, or is accepted once.
pub trait TokenSource: Send + Sync + 'static {
    /// The token to log in with now; the words of the error end in a log.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + Sync>>;
}

/// What a connection logs in with, besides its certificate.
#[derive(Clone)]
pub enum Login {
    /// Nothing.
    Certificate,
    /// The same token each time.
    Token(Arc<str>),
    /// A token for each attempt, such as a JWT-SVID.
    Fresh(Arc<dyn TokenSource>),
    /// The seed of an nkey, which signs the server's nonce.
    Nkey(Arc<str>),
    /// A user JWT and its nkey, as a credentials file holds them.
    Credentials(Arc<str>),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "Certificate",
            Self::Token(_) => "Token",
            Self::Fresh(_) => "Fresh",
            Self::Nkey(_) => "Nkey",
            Self::Credentials(_) => "Credentials",
        })
    }
}

/// The credentials are not those of a credentials file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("credentials hold no user JWT with its nkey")]
pub struct InvalidCredentials;

/// How one identity connects.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// The servers of one cluster, tried in turn. Others that a server tells of are not used.
    pub servers: Vec<NatsServer>,
    /// How to secure the connection.
    pub tls: NatsTls,
    /// What to log in with.
    pub login: Login,
    /// Where this identity is answered. It has to be allowed to subscribe **and publish** below it.
    pub inbox: InboxPrefix,
    /// What the server's own logs call the connection.
    pub name: String,
    /// What it holds and how long it waits.
    pub limits: NatsLimits,
}

impl NatsSettings {
    pub(super) fn addresses(&self) -> Vec<ServerAddr> {
        self.servers.iter().map(|server| server.0.clone()).collect()
    }

    pub(super) fn options(&self) -> Result<ConnectOptions, InvalidCredentials> {
        let NatsLimits { connect_timeout, ping_interval, reconnect_pause, .. } = self.limits;
        let options = self
            .login()?
            .name(&self.name)
            .custom_inbox_prefix(self.inbox.as_str())
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .client_capacity(CLIENT_CAPACITY)
            .connection_timeout(connect_timeout)
            .ping_interval(ping_interval)
            .request_timeout(None)
            .max_reconnects(None)
            .ignore_discovered_servers()
            // Our subjects are sound by their types; see the module `verbatim` for why it must not look.
            .skip_subject_validation(true)
            .reconnect_delay_callback(move |attempts| pause(attempts, reconnect_pause));
        Ok(match &self.tls {
            NatsTls::DangerPlain => options,
            NatsTls::Upgrade(config) => options.require_tls(true).tls_client_config((**config).clone()),
            NatsTls::First(config) => options.require_tls(true).tls_first().tls_client_config((**config).clone()),
        })
    }

    fn login(&self) -> Result<ConnectOptions, InvalidCredentials> {
        Ok(match &self.login {
            Login::Certificate => ConnectOptions::new(),
            Login::Token(token) => ConnectOptions::with_token(token.to_string()),
            Login::Nkey(seed) => ConnectOptions::with_nkey(seed.to_string()),
            Login::Credentials(text) => ConnectOptions::with_credentials(text).map_err(|_| InvalidCredentials)?,
            Login::Fresh(source) => {
                let source = Arc::clone(source);
                ConnectOptions::with_auth_callback(move |_nonce| {
                    let token = source.token();
                    async move {
                        let token = token.await.map_err(AuthError::new)?;
                        let mut auth = Auth::new();
                        auth.token = Some(token);
                        Ok(auth)
                    }
                })
            }
        })
    }
}

/// Messages of one subscription that async-nats keeps for us. Nobody waits before taking them out, so this covers a moment
/// without a core.
const SUBSCRIPTION_CAPACITY: usize = 16_384;
/// Messages that wait to be written: short ones, for others are held back before. A sender waits beyond.
const CLIENT_CAPACITY: usize = 512;

/// How long to wait before an attempt; the first is number 1, and comes at once.
fn pause(attempts: usize, most: Duration) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(2)).unwrap_or(u32::MAX).min(16);
    if attempts <= 1 { Duration::ZERO } else { FIRST_PAUSE.saturating_mul(1 << doublings).min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let most = Duration::from_millis(500);
        let pauses: Vec<_> = (0..9).map(|attempts| pause(attempts, most).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 10, 20, 40, 80, 160, 320, 500]);
        assert_eq!(pause(usize::MAX, most), most);
    }

    #[test]
    fn addresses_hold_no_credentials() {
        for good in ["nats://127.0.0.1:4222", "tls://nats.example:4222", "nats://[::1]:4222"] {
            assert!(good.parse::<NatsServer>().is_ok(), "{good}");
        }
        for bad in ["nats://user:secret@h:1", "nats://user@h:1", "ws://h:1", "http://h", "", "nats://"] {
            assert!(bad.parse::<NatsServer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_login_is_not_shown() {
        for login in [Login::Token("secret".into()), Login::Nkey("secret".into()), Login::Credentials("secret".into())]
        {
            assert!(!format!("{login:?}").contains("secret"));
        }
    }
}
