//! A raw client of any Workload API: the generated code over the Unix socket, and nothing that checks or repairs what comes.

use std::path::{Path, PathBuf};

use e2e::PATIENCE;
use portcullis_api::connect_operator;
use portcullis_api::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_api::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitsvidRequest, X509BundlesRequest, X509BundlesResponse,
    X509svidRequest, X509svidResponse,
};
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// Names the Workload API to run against; unset: a broker and an agent are started.
pub(crate) const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
const HEADER: &str = "workload.spiffe.io";

/// A call of the Workload API, or of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    X509Svid,
    X509Bundles,
    JwtSvid,
    JwtBundles,
    Validate,
    WitSvid,
    WitBundles,
    /// A method that the standard does not have, of its service or of another.
    Unknown(&'static str),
}

impl Call {
    pub(crate) const STABLE: [Self; 5] =
        [Self::X509Svid, Self::X509Bundles, Self::JwtSvid, Self::JwtBundles, Self::Validate];
    pub(crate) const WIT: [Self; 2] = [Self::WitSvid, Self::WitBundles];
    pub(crate) const UNKNOWN: [Self; 2] =
        [Self::Unknown("/SpiffeWorkloadAPI/FetchEverything"), Self::Unknown("/spiffe.workload.X/Fetch")];
}

/// A Workload API that is listened to at a socket.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    runtime: Runtime,
}

impl Socket {
    pub(crate) fn at(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { path: path.to_owned(), runtime }
    }

    /// The one that the environment names.
    pub(crate) fn of_environment() -> Option<Self> {
        let address = std::env::var(VARIABLE).ok().filter(|address| !address.is_empty())?;
        let path = address.strip_prefix("unix:").map(|path| path.strip_prefix("//").unwrap_or(path));
        Some(Self::at(Path::new(path.unwrap_or_else(|| panic!("{VARIABLE} is `{address}`, not `unix:///PATH`")))))
    }

    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("an answer took too long") })
    }

    async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(connect_operator(&self.path).await.unwrap())
    }

    /// The code of a call with these values of the security header.
    pub(crate) fn code(&self, call: Call, header: &[&str]) -> Code {
        self.code_with(call, |metadata| {
            for value in header {
                metadata.append(HEADER, value.parse().unwrap());
            }
        })
    }

    /// The code of a call with whatever header fields.
    pub(crate) fn code_with(&self, call: Call, fill: impl FnOnce(&mut MetadataMap)) -> Code {
        let mut metadata = MetadataMap::new();
        fill(&mut metadata);
        self.run(self.call(call, metadata)).map_or_else(|status| status.code(), |()| Code::Ok)
    }

    async fn call(&self, call: Call, metadata: MetadataMap) -> Result<(), Status> {
        let mut client = self.client().await;
        match call {
            Call::X509Svid => first(client.fetch_x509svid(with(X509svidRequest {}, metadata)).await?).await.map(drop),
            Call::X509Bundles => {
                first(client.fetch_x509_bundles(with(X509BundlesRequest {}, metadata)).await?).await.map(drop)
            }
            Call::JwtBundles => {
                first(client.fetch_jwt_bundles(with(JwtBundlesRequest {}, metadata)).await?).await.map(drop)
            }
            Call::JwtSvid => client.fetch_jwtsvid(with(wanted(&["a"], ""), metadata)).await.map(drop),
            Call::Validate => {
                let request = ValidateJwtsvidRequest { audience: "a".to_owned(), svid: "x.y.z".to_owned() };
                client.validate_jwtsvid(with(request, metadata)).await.map(drop)
            }
            Call::WitSvid => {
                first(client.fetch_witsvid(with(WitsvidRequest::default(), metadata)).await?).await.map(drop)
            }
            Call::WitBundles => {
                first(client.fetch_wit_bundles(with(WitBundlesRequest {}, metadata)).await?).await.map(drop)
            }
            Call::Unknown(path) => {
                let mut grpc = tonic::client::Grpc::new(connect_operator(&self.path).await.unwrap());
                grpc.ready().await.unwrap();
                let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidResponse>::default();
                let request = with(X509svidRequest {}, metadata);
                grpc.unary(request, PathAndQuery::from_static(path), codec).await.map(drop)
            }
        }
    }

    pub(crate) fn x509_stream(&self) -> Result<Streaming<X509svidResponse>, Status> {
        self.run(async { self.client().await.fetch_x509svid(good(X509svidRequest {})).await })
            .map(tonic::Response::into_inner)
    }

    pub(crate) fn bundle_stream(&self) -> Streaming<X509BundlesResponse> {
        self.run(async { self.client().await.fetch_x509_bundles(good(X509BundlesRequest {})).await })
            .unwrap()
            .into_inner()
    }

    /// The next message of a stream, which must not end.
    pub(crate) fn next<T>(&self, stream: &mut Streaming<T>) -> Result<T, Status> {
        self.run(stream.message()).map(|message| message.expect("the stream ended without a status"))
    }

    /// Reads on until a message says what is waited for; every message before must be a good one.
    pub(crate) fn until<T>(&self, stream: &mut Streaming<T>, what: &str, mut wanted: impl FnMut(&T) -> bool) -> T {
        loop {
            let message = self.next(stream).unwrap_or_else(|status| panic!("{status} instead of {what}"));
            if wanted(&message) {
                return message;
            }
        }
    }

    pub(crate) fn x509(&self) -> Result<X509svidResponse, Status> {
        self.next(&mut self.x509_stream()?)
    }

    pub(crate) fn x509_bundles(&self) -> Result<X509BundlesResponse, Status> {
        self.run(async { first(self.client().await.fetch_x509_bundles(good(X509BundlesRequest {})).await?).await })
    }

    pub(crate) fn jwt_bundles(&self) -> Result<JwtBundlesResponse, Status> {
        self.run(async { first(self.client().await.fetch_jwt_bundles(good(JwtBundlesRequest {})).await?).await })
    }

    pub(crate) fn jwt(&self, audience: &[&str], id: &str) -> Result<JwtsvidResponse, Status> {
        self.run(async { self.client().await.fetch_jwtsvid(good(wanted(audience, id))).await })
            .map(tonic::Response::into_inner)
    }

    /// One token for `audience`, of the default identity.
    pub(crate) fn token(&self, audience: &str) -> String {
        self.jwt(&[audience], "").unwrap().svids[0].svid.clone()
    }

    pub(crate) fn validate(&self, token: &str, audience: &str) -> Result<ValidateJwtsvidResponse, Status> {
        let request = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: token.to_owned() };
        self.run(async { self.client().await.validate_jwtsvid(good(request)).await }).map(tonic::Response::into_inner)
    }
}

async fn first<T>(stream: tonic::Response<Streaming<T>>) -> Result<T, Status> {
    stream.into_inner().message().await.map(|message| message.expect("the stream ended without a message"))
}

fn with<T>(message: T, metadata: MetadataMap) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata;
    request
}

fn good<T>(message: T) -> Request<T> {
    let mut metadata = MetadataMap::new();
    metadata.insert(HEADER, MetadataValue::from_static("true"));
    with(message, metadata)
}

fn wanted(audience: &[&str], id: &str) -> JwtsvidRequest {
    JwtsvidRequest { audience: audience.iter().map(|&one| one.to_owned()).collect(), spiffe_id: id.to_owned() }
}
