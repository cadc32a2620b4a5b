//! Interfaces that a host knows: it calls others in their place, and what answers is a service that knows no wasm.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use e2e::{Lab, SidecarSetup, eventually, guest};
use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt as _};

use crate::scene::{AT_ONCE, Scene, get, put, weigh};
use bindings::exports::wrpc::blobstore::blobstore;
use bindings::exports::wrpc::keyvalue::store;

mod bindings {
    #![allow(
        missing_docs,
        unused_qualifications,
        unreachable_pub,
        elided_lifetimes_in_paths,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated code"
    )]
    wit_bindgen_wrpc::generate!({ path: "wit/stores.wit", world: "stores", generate_all });
}

const STORES: &str = include_str!("../../wit/stores.wit");
/// The other component may nothing.
const POLICY: &str = "@id(\"shelf\") permit(principal == HostedComponent::\"shelf\", action, resource);\n";
const OBJECT: usize = 3 << 20;

/// Both stores: values as they were set, and one object.
#[derive(Clone, Default)]
struct Stores(Arc<Mutex<HashMap<(String, String), Bytes>>>);

impl<C: Send> store::Handler<C> for Stores {
    async fn get(&self, _: C, bucket: String, key: String) -> anyhow::Result<Result<Option<Bytes>, store::Error>> {
        Ok(Ok(self.0.lock().unwrap().get(&(bucket, key)).cloned()))
    }

    async fn set(&self, _: C, bucket: String, key: String, value: Bytes) -> anyhow::Result<Result<(), store::Error>> {
        self.0.lock().unwrap().insert((bucket, key), value);
        Ok(Ok(()))
    }
}

type Parts = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
type End = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl<C: Send> blobstore::Handler<C> for Stores {
    async fn container_exists(&self, _: C, name: String) -> anyhow::Result<Result<bool, String>> {
        Ok(Ok(name == "depot"))
    }

    async fn get_container_data(
        &self,
        _: C,
        id: blobstore::ObjectId,
        _: u64,
        _: u64,
    ) -> anyhow::Result<Result<(Parts, End), String>> {
        if id.object != "crate" {
            return Ok(Err(format!("there is no `{}` in `{}`", id.object, id.container)));
        }
        let parts = (0..OBJECT / 65_536).map(|_| Bytes::from(vec![1; 65_536]));
        Ok(Ok((Box::pin(tokio_stream::iter(parts)), Box::pin(async { Ok(()) }))))
    }
}

/// Serves both on a Unix socket until the lab ends, with nothing of ours.
fn serve(lab: &Lab, socket: &Path, stores: Stores) {
    let listener = lab.block_on(async { UnixListener::bind(socket).unwrap() });
    let stop = lab.stop().clone();
    lab.spawn(stop.run_until_cancelled_owned(async move {
        let server = Arc::new(wrpc_transport::Server::default());
        for (_, _, mut calls) in store::serve_interface(server.as_ref(), stores.clone()).await.unwrap() {
            tokio::spawn(async move {
                while let Some(Ok(call)) = calls.next().await {
                    tokio::spawn(call);
                }
            });
        }
        for (_, _, mut calls) in blobstore::serve_interface(server.as_ref(), stores).await.unwrap() {
            tokio::spawn(async move {
                while let Some(Ok(call)) = calls.next().await {
                    tokio::spawn(call);
                }
            });
        }
        loop {
            let _ = server.accept(&listener).await;
        }
    }));
}

#[test]
#[ignore = "needs a wasmCloud host: tests/wasmcloud/run.sh"]
fn what_a_host_makes_of_its_own_interfaces_reaches_a_service() {
    let scene = Scene::open("");
    let socket = scene.lab.path().join("stores.sock");
    let stores = Stores::default();
    serve(&scene.lab, &socket, stores.clone());
    let setup = SidecarSetup::splice("stores", &socket).wit(STORES);
    let sidecar = scene.lab.sidecar(&setup.with("streams = \"0.29\"\n").with(&scene.nats()));
    scene.lab.policy("stores.cedar", POLICY);
    eventually("its sidecar to join", || (scene.lab.status("stores")["nats"]["connected"] == true).then_some(()));
    let host = scene.host("host", &[]);
    for component in ["shelf", "thief"] {
        for (package, interface) in [("keyvalue", "store"), ("blobstore", "blobstore")] {
            scene.operator.link_by(&scene.lab, (component, "vc.stores.host"), ("wasi", package, interface));
        }
        scene.operator.start(&scene.lab, &host, component, &guest("shelf"));
    }
    // Plain values, there and back; and what is in the store is what the component has set.
    let by = &scene.operator.joined;
    eventually("something to be put", || scene.lab.block_on(put(by, "shelf", "a", "apple")).ok());
    assert_eq!(scene.lab.block_on(get(by, "shelf", "a")), Ok(Some("apple".to_owned())));
    assert_eq!(scene.lab.block_on(get(by, "shelf", "b")), Ok(None));
    assert_eq!(stores.0.lock().unwrap()[&("things".to_owned(), "a".to_owned())], "apple");
    // Three megabytes of a stream, and the future beside it.
    let weight = u64::try_from(OBJECT).unwrap();
    assert_eq!(scene.lab.block_on(weigh(by, "shelf", "crate")), Ok((weight, weight)));
    assert_eq!(scene.lab.block_on(weigh(by, "shelf", "box")), Err("there is no `box` in `depot`".to_owned()));
    // Who may not is told at once.
    let began = std::time::Instant::now();
    scene.lab.block_on(put(by, "thief", "a", "pear")).unwrap_err();
    scene.lab.block_on(weigh(by, "thief", "crate")).unwrap_err();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    sidecar.logged(&["refused", "host:thief", "wrpc:keyvalue/store@0.2.0-draft", "no policy permits it"]);
    host.daemon.logged(&["id=thief", "received a response with code `403`"]);
    assert_eq!(scene.lab.block_on(get(by, "shelf", "a")), Ok(Some("apple".to_owned())));
}
