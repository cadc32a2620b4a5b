//! The whole API on a socket, with gRPC clients that send what they like.

use std::path::Path;

use portcullis_api::connect_operator;
use portcullis_api::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_api::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitsvidRequest, X509BundlesRequest, X509svidRequest,
    X509svidResponse,
};
use portcullis_identity::PrivateKey;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::fixture::{Ca, Fake, entry, held, snapshot};
use super::*;

struct Lab {
    _folder: tempfile::TempDir,
    config: WorkloadConfig,
    fake: Fake,
    ca: Ca,
    api: WorkloadApi,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Lab {
    fn new() -> Self {
        Self::with(WorkloadLimits::default(), Vec::new())
    }

    fn with(limits: WorkloadLimits, uids: Vec<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api/workload.sock");
        let config = WorkloadConfig { socket, mode: 0o777, uids, login_audiences: Vec::new(), limits };
        let (fake, tasks, stop) = (Fake::new(), TaskTracker::new(), CancellationToken::new());
        let listener = WorkloadApi::bind(&config).unwrap();
        let api = WorkloadApi::serve(listener, &config, fake.clone(), &tasks, &stop);
        Self { _folder: folder, config, fake, ca: Ca::new("a.test"), api, stop, tasks }
    }

    async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(connect_operator(&self.config.socket).await.unwrap())
    }

    /// An entry that this very process meets, and one of others.
    fn own_and_other(&self) -> Vec<Held> {
        vec![held(&self.ca, "own", "/own", &[&own_uid()]), held(&self.ca, "other", "/other", &["unix:uid:4711"])]
    }
}

fn own_uid() -> String {
    format!("unix:uid:{}", rustix::process::geteuid().as_raw())
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

async fn svids(client: &mut SpiffeWorkloadApiClient<Channel>) -> Result<Streaming<X509svidResponse>, Status> {
    client.fetch_x509svid(with_header(X509svidRequest {})).await.map(tonic::Response::into_inner)
}

fn ids(message: &X509svidResponse) -> Vec<&str> {
    message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

#[tokio::test]
async fn a_workload_gets_its_svids_at_once_and_after_every_change() {
    let lab = Lab::new();
    lab.fake.set(snapshot(&lab.ca, lab.own_and_other()));
    let mut client = lab.client().await;
    let mut stream = svids(&mut client).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&first), ["spiffe://a.test/own"]);
    let svid = &first.svids[0];
    assert_eq!(svid.bundle, lab.ca.certificate);
    PrivateKey::from_pkcs8(&svid.x509_svid_key).unwrap();

    let mut more = lab.own_and_other();
    more.push(held(&lab.ca, "second", "/second", &[&own_uid()]));
    lab.fake.set(snapshot(&lab.ca, more));
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&second), ["spiffe://a.test/own", "spiffe://a.test/second"]);
    assert_ne!(second.svids[0].x509_svid, svid.x509_svid, "a renewal is pushed");
    assert_eq!(lab.api.streams(), 1);
}

#[tokio::test]
async fn nothing_is_sent_where_nothing_changed_for_the_caller() {
    let lab = Lab::new();
    let own = held(&lab.ca, "own", "/own", &[&own_uid()]);
    lab.fake.set(snapshot(&lab.ca, vec![own.clone()]));
    let mut client = lab.client().await;
    let mut stream = svids(&mut client).await.unwrap();
    stream.message().await.unwrap().unwrap();
    // The change of another one's entry, then one of ours: the next message is the second.
    lab.fake.set(snapshot(&lab.ca, vec![own.clone(), held(&lab.ca, "other", "/other", &["unix:uid:4711"])]));
    tokio::task::yield_now().await;
    lab.fake.set(snapshot(&lab.ca, vec![own, held(&lab.ca, "more", "/more", &[&own_uid()])]));
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 2);
}

#[tokio::test]
async fn a_redacted_identity_leaves_and_the_last_one_ends_the_stream() {
    let lab = Lab::new();
    let both = vec![held(&lab.ca, "e1", "/one", &[&own_uid()]), held(&lab.ca, "e2", "/two", &[&own_uid()])];
    lab.fake.set(snapshot(&lab.ca, both.clone()));
    let mut client = lab.client().await;
    let mut stream = svids(&mut client).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 2);
    lab.fake.set(snapshot(&lab.ca, vec![both[1].clone()]));
    assert_eq!(ids(&stream.message().await.unwrap().unwrap()), ["spiffe://a.test/two"]);
    lab.fake.set(snapshot(&lab.ca, Vec::new()));
    assert_eq!(stream.message().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_stranger_is_denied_everything() {
    let lab = Lab::new();
    lab.fake.set(snapshot(&lab.ca, vec![held(&lab.ca, "other", "/other", &["unix:uid:4711"])]));
    let mut client = lab.client().await;
    let audience = vec!["db".to_owned()];
    let denied = [
        svids(&mut client).await.unwrap_err(),
        client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap_err(),
        client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await.unwrap_err(),
        client.fetch_jwtsvid(with_header(JwtsvidRequest { audience, spiffe_id: String::new() })).await.unwrap_err(),
        client
            .validate_jwtsvid(with_header(ValidateJwtsvidRequest {
                audience: "db".to_owned(),
                svid: "spiffe://a.test/x db".to_owned(),
            }))
            .await
            .unwrap_err(),
    ];
    for status in denied {
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
}

#[tokio::test]
async fn until_the_broker_has_spoken_callers_are_told_to_wait() {
    let lab = Lab::new();
    let mut client = lab.client().await;
    assert_eq!(svids(&mut client).await.unwrap_err().code(), Code::Unavailable);
    lab.fake.set(snapshot(&lab.ca, vec![Held { entry: entry("own", "/own", &[&own_uid()]), svid: None }]));
    assert_eq!(svids(&mut client).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn every_call_demands_the_security_header_once() {
    let lab = Lab::new();
    lab.fake.set(snapshot(&lab.ca, lab.own_and_other()));
    let mut client = lab.client().await;
    for values in [&[][..], &["True"], &["1"], &[""], &["true", "true"], &["true", "false"], &["true, true"]] {
        let mut request = Request::new(X509svidRequest {});
        for value in values {
            request.metadata_mut().append("workload.spiffe.io", value.parse().unwrap());
        }
        let status = client.fetch_x509svid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{values:?}");
    }
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert_bin("workload.spiffe.io-bin", MetadataValue::from_bytes(b"true"));
    assert_eq!(client.fetch_x509svid(request).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(
        client.validate_jwtsvid(ValidateJwtsvidRequest::default()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(client.fetch_witsvid(WitsvidRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
    for path in ["/SpiffeWorkloadAPI/Nonsense", "/other.Service/Method"] {
        assert_eq!(call_unknown(&lab.config.socket, path, false).await, Code::InvalidArgument, "{path}");
        assert_eq!(call_unknown(&lab.config.socket, path, true).await, Code::Unimplemented, "{path}");
    }
}

/// The status of a call that no service knows.
async fn call_unknown(socket: &Path, path: &'static str, header: bool) -> Code {
    let mut grpc = tonic::client::Grpc::new(connect_operator(socket).await.unwrap());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidResponse>::default();
    let request = if header { with_header(X509svidRequest {}) } else { Request::new(X509svidRequest {}) };
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, codec).await.unwrap_err().code()
}

#[tokio::test]
async fn wit_svids_are_not_offered() {
    let lab = Lab::new();
    let mut client = lab.client().await;
    let status = client.fetch_witsvid(with_header(WitsvidRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let request = with_header(portcullis_api::workload::WitBundlesRequest::default());
    assert_eq!(client.fetch_wit_bundles(request).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn jwt_svids_are_of_the_callers_own_identities() {
    let lab = Lab::new();
    let mut more = lab.own_and_other();
    more.push(Held {
        entry: Entry { hint: "web".to_owned(), created_at: 9, ..entry("second", "/second", &[&own_uid()]) },
        svid: None,
    });
    lab.fake.set(snapshot(&lab.ca, more));
    let mut client = lab.client().await;
    let ask = |audience: &[&str], id: &str| {
        with_header(JwtsvidRequest {
            audience: audience.iter().map(|&audience| audience.to_owned()).collect(),
            spiffe_id: id.to_owned(),
        })
    };
    let all = client.fetch_jwtsvid(ask(&["db"], "")).await.unwrap().into_inner().svids;
    let got: Vec<_> =
        all.iter().map(|svid| (svid.spiffe_id.as_str(), svid.svid.as_str(), svid.hint.as_str())).collect();
    assert_eq!(
        got,
        [("spiffe://a.test/own", "token of own", ""), ("spiffe://a.test/second", "token of second", "web")]
    );
    let one = client.fetch_jwtsvid(ask(&["db", "web"], "spiffe://a.test/second")).await.unwrap().into_inner().svids;
    assert_eq!(one.len(), 1);
    assert_eq!(lab.fake.wanted.lock().unwrap().last().unwrap().audience, ["db", "web"]);
    for (audience, id, code) in [
        (&[][..], "", Code::InvalidArgument),
        (&[""], "", Code::InvalidArgument),
        (&["db", ""], "", Code::InvalidArgument),
        (&["x"; 17], "", Code::InvalidArgument),
        (&["db"], "http://a.test/own", Code::InvalidArgument),
        (&["db"], "spiffe://a.test/other", Code::PermissionDenied),
        (&["db"], "spiffe://b.test/own", Code::PermissionDenied),
    ] {
        assert_eq!(client.fetch_jwtsvid(ask(audience, id)).await.unwrap_err().code(), code, "{audience:?} {id}");
    }
}

#[tokio::test]
async fn a_token_is_validated_for_domains_the_caller_may_see() {
    let lab = Lab::new();
    let mut held = lab.own_and_other();
    held[0].entry.federates_with.insert(Ca::domain("b.test"));
    lab.fake.set(snapshot(&lab.ca, held));
    let mut client = lab.client().await;
    let ask = |svid: &str, audience: &str| {
        with_header(ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() })
    };
    for id in ["spiffe://a.test/x", "spiffe://b.test/x"] {
        let valid = client.validate_jwtsvid(ask(&format!("{id} db"), "db")).await.unwrap().into_inner();
        assert_eq!(valid.spiffe_id, id);
        assert!(valid.claims.unwrap().fields.contains_key("aud"));
    }
    for (svid, audience) in [
        ("spiffe://c.test/x db", "db"),
        ("spiffe://a.test/x db", "web"),
        ("nonsense", "db"),
        ("", "db"),
        ("spiffe://a.test/x db", ""),
        (&"x".repeat(20_000), "db"),
    ] {
        assert_eq!(client.validate_jwtsvid(ask(svid, audience)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_user_takes_no_more_than_its_share() {
    let limits = WorkloadLimits { streams_per_uid: 1, requests_per_second: 2, ..WorkloadLimits::default() };
    let lab = Lab::with(limits, Vec::new());
    lab.fake.set(snapshot(&lab.ca, lab.own_and_other()));
    let mut client = lab.client().await;
    let first = svids(&mut client).await.unwrap();
    assert_eq!(svids(&mut client).await.unwrap_err().code(), Code::Unavailable);
    drop(first);
    let mut codes = Vec::new();
    for _ in 0..4 {
        let request = with_header(JwtsvidRequest { audience: vec!["db".to_owned()], spiffe_id: String::new() });
        codes.push(client.fetch_jwtsvid(request).await.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert_eq!((codes[0], codes[3]), (Code::Ok, Code::Unavailable), "{codes:?}");
}

#[tokio::test]
async fn a_user_who_may_not_connect_is_closed() {
    let lab = Lab::with(WorkloadLimits::default(), vec![4711]);
    let stream = tokio::net::UnixStream::connect(&lab.config.socket).await.unwrap();
    stream.readable().await.unwrap();
    assert_eq!(stream.try_read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(lab.api.connections(), 0);
}

#[tokio::test]
async fn a_stopping_api_ends_its_streams_and_removes_its_socket() {
    let lab = Lab::new();
    lab.fake.set(snapshot(&lab.ca, lab.own_and_other()));
    let mut client = lab.client().await;
    let mut stream = svids(&mut client).await.unwrap();
    stream.message().await.unwrap().unwrap();
    lab.stop.cancel();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    drop((stream, client));
    lab.tasks.close();
    lab.tasks.wait().await;
    assert!(!lab.config.socket.exists());
}

#[tokio::test]
async fn a_client_that_says_nothing_keeps_nobody_from_stopping() {
    let lab = Lab::new();
    let _silent = tokio::net::UnixStream::connect(&lab.config.socket).await.unwrap();
    while lab.api.connections() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    lab.stop.cancel();
    lab.tasks.close();
    lab.tasks.wait().await;
}

#[tokio::test]
async fn the_api_describes_itself_to_who_sends_the_header() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let lab = Lab::new();
    let mut client = ServerReflectionClient::new(connect_operator(&lab.config.socket).await.unwrap());
    let ask = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request })
    };
    let refused = client.server_reflection_info(ask()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut answers = client.server_reflection_info(with_header(ask())).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list")
    };
    assert!(list.service.iter().any(|service| service.name == "SpiffeWorkloadAPI"), "{list:?}");
}

#[tokio::test]
async fn a_template_makes_the_entry_of_a_caller_and_nothing_where_the_broker_refuses() {
    let lab = Lab::new();
    let uid = own_uid();
    let number = uid.rsplit(':').next().unwrap().to_owned();
    let template = |pattern: &str| Template {
        id: "t1".to_owned(),
        pattern: pattern.parse().unwrap(),
        selectors: [uid.clone()].into(),
    };
    let made = format!("/svc/{number}");
    let empty = snapshot(&lab.ca, Vec::new()).with_templates(vec![template("spiffe://a.test/svc/{unix:uid}")]);
    lab.fake.set(empty.clone());
    let mut client = lab.client().await;
    assert_eq!(svids(&mut client).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(lab.fake.filled.lock().unwrap()[0].values, [number]);

    let after = empty.clone().with_held(vec![held(&lab.ca, "e1", &made, &[&uid])]);
    *lab.fake.after_filling.lock().unwrap() = Some(after.clone());
    let first = svids(&mut client).await.unwrap().message().await.unwrap().unwrap();
    assert_eq!(ids(&first), [format!("spiffe://a.test{made}")]);
    // It is there now: nobody asks again.
    svids(&mut client).await.unwrap();
    assert_eq!(lab.fake.filled.lock().unwrap().len(), 2);

    let other = Template { selectors: ["unix:uid:4711".to_owned()].into(), ..template("spiffe://a.test/x/{unix:uid}") };
    lab.fake.set(snapshot(&lab.ca, Vec::new()).with_templates(vec![other]));
    assert_eq!(svids(&mut client).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(lab.fake.filled.lock().unwrap().len(), 2);
}
