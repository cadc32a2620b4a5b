use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::Subscriber;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};
use tokio_stream::StreamExt as _;

use super::{
    clock::TICK,
    inbox::NoRandomness,
    proof::Unproved,
    settings::{InvalidCredentials, NatsSettings},
    shared::{Lifetime, Listener, Shared, hear},
};

/// One connection to a NATS server, over which one identity calls and is called. Clones are the same connection.
///
/// # How messages find their call
///
/// One subscription, `{prefix}.{connection}.>`, takes everything that is sent to this connection's calls. A call's
/// subjects hold a key of 128 random bits; [`LinkDriver`] looks it up and puts the message into that call's own bounded
/// buffer. It never waits: a reader that is slow, or a sender that is too fast, ends its own call. A subscription per call
/// would cost the server two changes of its routing table a call (and every server of a cluster), and async-nats would
/// drop single messages of a call that is slow without anybody knowing which.
///
/// # When the connection is lost
///
/// async-nats connects again by itself and subscribes again, but for links of a session that asks a
/// [`Proof`](super::Proof). What was sent in between is lost, so every call under way ends
/// with [`CallFailed::Disconnected`](super::CallFailed::Disconnected), at once; new calls fail with it until there is a
/// connection. A client that async-nats gives up ends its driver: see [`Session`](super::Session).
#[derive(Clone, Debug)]
pub struct Link {
    pub(super) shared: Arc<Shared>,
}

/// Moves what arrives on a [`Link`] to its calls and watches their deadlines. Its owner spawns [`run`](Self::run).
#[derive(Debug)]
pub struct LinkDriver {
    shared: Arc<Shared>,
    inbox: Subscriber,
}

/// A connection to a NATS server could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server is configured.
    #[error("no nats server is configured")]
    NoServer,
    /// The credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] InvalidCredentials),
    /// No server could be reached, or none accepts us.
    #[error("cannot connect to a nats server")]
    Connect(#[from] async_nats::ConnectError),
    /// The server speaks a protocol without headers.
    #[error("nats server `{version}` knows no headers")]
    NoHeaders {
        /// What the server calls its version.
        version: String,
    },
    /// The connection was lost while it was being set up.
    #[error("connection was lost while it was being set up")]
    Lost,
    /// The server does not let us subscribe and publish below our own inbox, or does not answer.
    #[error("nats server did not confirm the inbox `{inbox}`: may this identity subscribe and publish below it?")]
    NotConfirmed {
        /// What was subscribed.
        inbox: String,
    },
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// It was made, and is of no use.
    #[error(transparent)]
    Unproved(#[from] Unproved),
}

impl Link {
    /// Connects, logs in, subscribes to the inbox and waits until the server has confirmed that.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]
    pub async fn connect(settings: &NatsSettings) -> Result<(Self, LinkDriver), ConnectError> {
        Self::connect_for(settings, Lifetime::Reconnects).await
    }

    pub(super) async fn connect_for(
        settings: &NatsSettings,
        lifetime: Lifetime,
    ) -> Result<(Self, LinkDriver), ConnectError> {
        let addresses = settings.addresses();
        if addresses.is_empty() {
            return Err(ConnectError::NoServer);
        }
        let listener: Listener = Arc::new(OnceLock::new());
        let heard = Arc::clone(&listener);
        let options = settings.options()?.event_callback(move |event| {
            hear(&heard, &event);
            std::future::ready(())
        });
        let options = match lifetime {
            Lifetime::Reconnects => options,
            // It tries each server once, at first and, before it notices that nobody wants that any more, once again.
            Lifetime::OneConnection => options.max_reconnects(Some(addresses.len())),
        };
        let client = options.connect(addresses).await?;
        let info = client.server_info();
        if !info.headers {
            return Err(ConnectError::NoHeaders { version: info.version });
        }
        let inbox = format!("{}.{}.", settings.inbox, connection_token()?);
        let shared = Arc::new(Shared::new(client, inbox.clone(), settings.limits, lifetime));
        // Nobody else sets it.
        let _ = listener.set(Arc::downgrade(&shared));
        let subject = format!("{inbox}>");
        let subscriber = shared.client().subscribe(subject.clone()).await.map_err(|_| ConnectError::Lost)?;
        let mut driver = LinkDriver { shared: Arc::clone(&shared), inbox: subscriber };
        driver.confirm(subject).await?;
        Ok((Self { shared }, driver))
    }

    /// Whether the server can be reached at the moment.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    /// The longest message the server takes, in bytes.
    pub fn max_payload(&self) -> usize {
        self.shared.client().max_payload()
    }

    /// What the server calls its version.
    pub fn server_version(&self) -> String {
        self.shared.client().server_info().version
    }

    /// Calls under way, made and served.
    pub fn calls(&self) -> usize {
        self.shared.calls()
    }

    /// Requests that were lost because nobody took them from an acceptor in time.
    pub fn dropped_requests(&self) -> u64 {
        self.shared.dropped()
    }

    /// Waits until this connection should be replaced: its server is about to stop, or the client under it has ended.
    pub async fn leaving(&self) {
        self.shared.leaving().cancelled().await;
    }

    /// Waits until no call is under way and no acceptor takes calls, at most for `patience`. True when it is so.
    pub async fn idle(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.shared.wait_idle()).await.is_ok()
    }

    /// Waits until the server has taken what was sent before; false when it does not say so in time.
    pub async fn settled(&self) -> bool {
        self.shared.settled().await.unwrap_or(false)
    }

    /// Ends the connection: calls under way fail, and the driver returns.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }
}

/// Which of its identity's connections this is: 64 random bits, so that two of them are not told of each other's calls.
fn connection_token() -> Result<String, NoRandomness> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

impl LinkDriver {
    async fn confirm(&mut self, inbox: String) -> Result<(), ConnectError> {
        let shared = Arc::clone(&self.shared);
        let confirmed = select! {
            confirmed = shared.settled() => confirmed?,
            () = self.receive() => false,
        };
        if confirmed { Ok(()) } else { Err(ConnectError::NotConfirmed { inbox }) }
    }

    /// Drives the connection until it is closed or the client under it has ended. Every call under way ends with it.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        select! {
            () = self.receive() => {}
            () = shared.closing.cancelled() => {}
        }
        // Acceptors learn by it that nothing comes any more. A client that has ended already does not need it.
        let _ = tokio::time::timeout(shared.limits.send_timeout, shared.client().drain()).await;
    }

    async fn receive(&mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In turn by chance: under a flood the deadlines count, too.
            select! {
                message = self.inbox.next() => match message {
                    Some(message) => self.shared.route(&message),
                    None => return,
                },
                _ = ticks.tick() => self.shared.tick(),
            }
        }
    }
}

impl Drop for LinkDriver {
    fn drop(&mut self) {
        self.shared.end();
    }
}
