//! The sidecar between a lattice and a framed service, as it runs in production, on the bench's own runtime.

use std::path::PathBuf;

use e2e::nats::NatsServer;
use e2e::{Caller as Identity, Lab, SidecarSetup, eventually};
use portcullis_client::lattice::{LatticeSettings, NatsSecurity, address};
use portcullis_identity::lattice_name;
use portcullis_transport::nats::{Link, NatsLimits};
use portcullis_transport::quic::{Connection, Dialer, QuicLimits};
use tokio::runtime::Runtime;

use crate::sidecar::Inside;
use crate::stock;

/// The parties that ways through the sidecar need.
pub struct Scene {
    sidecar: Option<Inside>,
    /// Held open: dropping one closes its connection.
    connections: Vec<Connection>,
    dialer: Dialer,
    identity: Identity,
    pub socket: PathBuf,
    lab: Lab,
}

impl Scene {
    /// A service, its sidecar on QUIC and on the lattice, and a caller that policy permits.
    pub fn set(runtime: &Runtime, server: &NatsServer) -> anyhow::Result<Self> {
        let lab = Lab::start();
        lab.allow_all();
        let socket = lab.path().join("echo.sock");
        let listener = runtime.block_on(async { stock::bind(&socket) });
        runtime.spawn(stock::unix(listener));
        let nats = format!("[nats]\nservers = [\"{}\"]\ndanger_plain = true\n", server.url());
        let config = lab.register(&SidecarSetup::splice("shop", &socket).with(&nats));
        let identity = lab.caller("caller");
        let sidecar = Inside::start(runtime, &config)?;
        // On the lattice before anybody calls it there.
        let admin = lab.admin_socket("shop");
        eventually("the sidecar to be on its lattice", || {
            let status = std::fs::exists(&admin).unwrap_or_default().then(|| lab.status("shop"))?;
            (status["nats"]["connected"] == true).then_some(())
        });
        let dialer = Dialer::new(identity.identity.trust(), identity.identity.slot().clone(), QuicLimits::default());
        Ok(Self { sidecar: Some(sidecar), connections: Vec::new(), dialer, identity, socket, lab })
    }

    /// A stock client over QUIC to the same sidecar.
    pub fn quic(&mut self, runtime: &Runtime) -> anyhow::Result<wrpc_transport_quic::Client> {
        let sidecar = self.sidecar.as_ref().ok_or_else(|| anyhow::anyhow!("the sidecar has ended"))?;
        let id = self.lab.record(&self.identity, "shop").spiffe_id;
        let connection = runtime.block_on(self.dialer.connect(sidecar.bound.quic, &id))?;
        let client = wrpc_transport_quic::Client::from(connection.quinn().clone());
        self.connections.push(connection);
        Ok(client)
    }

    /// The caller on the lattice, under its own name.
    pub fn on_lattice(&self, runtime: &Runtime, server: &NatsServer) -> anyhow::Result<Link> {
        let settings = LatticeSettings {
            servers: vec![server.url().parse()?],
            security: NatsSecurity::DangerPlain,
            credentials: None,
        };
        let name =
            lattice_name(&self.identity.identity.id()).ok_or_else(|| anyhow::anyhow!("the caller has no name"))?;
        address(&name)?;
        let settings = settings.of(&self.identity.identity, &name, NatsLimits::default())?;
        let (link, driver) = runtime.block_on(Link::connect(&settings))?;
        runtime.spawn(driver.run());
        Ok(link)
    }

    /// Ends the sidecar in order, so that a drain that hangs is noticed.
    pub fn strike(&mut self, runtime: &Runtime) {
        self.connections.clear();
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.stop(runtime);
        }
    }
}
