//! What hosts ask, as wasmCloud 1.9 writes it, and what they are answered. Everything in a question is the host's word.

use std::collections::BTreeMap;

use portcullis_identity::{ComponentId, Lattice, SpiffeId};
use portcullis_policy::{
    Admission, AdmissionAction, Artifact, ArtifactClaims, AskingHost, ImageReference, InvalidImage,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a question.
pub(super) const MAX_QUESTION: usize = 32 << 10;
/// The version of questions that is known.
const VERSION: &str = "v1";
/// Letters of a request's id, and of a host's key.
const MAX_ID: usize = 64;
/// Labels of a host; annotations of what it starts.
const MAX_TEXTS: usize = 64;
/// Bytes of the name of one.
const MAX_NAME: usize = 256;
/// Bytes of the value of one.
const MAX_VALUE: usize = 1024;
/// Letters of what is wrong with a question: it may quote the question.
const MAX_REASON: usize = 200;
/// Bytes of a message: it stands in hosts' logs.
const MAX_MESSAGE: usize = 512;

/// A question that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// By what the answer, and every later one, is known to the host.
    pub(super) request: RequestId,
    /// The lattice that it names.
    pub(super) lattice: Lattice,
    host: AskingHost,
    action: AdmissionAction,
    artifact: Artifact,
}

/// The id of a request, chosen by a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequestId(String);

/// Why a question is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the question has {0} bytes, which is more than {MAX_QUESTION}")]
    TooLarge(usize),
    #[error("the question cannot be read: {0}")]
    Json(String),
    #[error("the question's version is not `{VERSION}`")]
    Version,
    #[error("the question's kind is none of startComponent, startProvider and performInvocation")]
    Kind,
    #[error("the request's id is not 1 to {MAX_ID} letters, digits, `-` and `_`")]
    RequestId,
    #[error("the host's key is not 1 to {MAX_ID} letters and digits")]
    HostKey,
    #[error("the lattice is refused: {0}")]
    Lattice(String),
    #[error("the id is refused: {0}")]
    Id(String),
    #[error("the image's reference is refused: {0}")]
    Image(#[from] InvalidImage),
    #[error("{0} are too many or too long")]
    Texts(&'static str),
    #[error("the function's name is empty or too long")]
    Function,
    #[error("the question is about lattice `{named}` and came in from lattice `{asked}`")]
    OtherLattice { named: Lattice, asked: Lattice },
    #[error("the topic is no host's of this lattice: its identity is another, or not registered")]
    Topic,
    #[error("the request's id was used for another question")]
    Used,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuestionWire {
    request_id: String,
    kind: String,
    version: String,
    request: Value,
    host: HostWire,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostWire {
    public_key: String,
    lattice: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ComponentWire {
    component_id: String,
    image_ref: String,
    max_instances: u32,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    claims: Option<ClaimsWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProviderWire {
    provider_id: String,
    image_ref: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    claims: Option<ClaimsWire>,
}

#[derive(Deserialize)]
struct InvocationWire {
    interface: String,
    function: String,
    target: ComponentWire,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimsWire {
    public_key: String,
    issuer: String,
    expired: bool,
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// When it is not one of version 1, or something in it is longer than such things are.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_QUESTION {
            return Err(Malformed::TooLarge(bytes.len()));
        }
        let QuestionWire { request_id, kind, version, request, host } = json(bytes)?;
        if version != VERSION {
            return Err(Malformed::Version);
        }
        let (action, artifact) = match kind.as_str() {
            "startComponent" => {
                let component: ComponentWire = of_kind(request)?;
                let action = AdmissionAction::StartComponent { max_instances: component.max_instances };
                (action, component.artifact()?)
            }
            "startProvider" => (AdmissionAction::StartProvider, of_kind::<ProviderWire>(request)?.artifact()?),
            "performInvocation" => {
                let InvocationWire { interface, function, target } = of_kind(request)?;
                if ![&interface, &function].iter().all(|name| (1..=MAX_NAME).contains(&name.len())) {
                    return Err(Malformed::Function);
                }
                (AdmissionAction::PerformInvocation { interface, function }, target.artifact()?)
            }
            _ => return Err(Malformed::Kind),
        };
        let HostWire { public_key, lattice, labels } = host;
        let lattice: Lattice =
            lattice.parse().map_err(|error: portcullis_identity::InvalidName| Malformed::Lattice(short(&error)))?;
        let is_key = (1..=MAX_ID).contains(&public_key.len()) && public_key.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_key {
            return Err(Malformed::HostKey);
        }
        let labels = bounded("the host's labels", labels)?;
        Ok(Self {
            request: RequestId::parse(&request_id).ok_or(Malformed::RequestId)?,
            host: AskingHost { public_key, lattice: lattice.to_string(), spiffe_id: None, labels },
            lattice,
            action,
            artifact,
        })
    }

    /// Whether it is about the start of `component`.
    pub(super) fn starts(&self, component: &str) -> bool {
        matches!(self.action, AdmissionAction::StartComponent { .. }) && self.artifact.id == component
    }

    /// As policies see it, asked by a host that proved to be `host`.
    pub(crate) fn admission(self, host: Option<&SpiffeId>) -> Admission {
        let Self { request: _, lattice: _, host: asking, action, artifact } = self;
        let host = AskingHost { spiffe_id: host.map(ToString::to_string), ..asking };
        Admission { host, action, artifact }
    }
}

impl RequestId {
    /// The id, where it is one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        ((1..=MAX_ID).contains(&text.len()) && text.bytes().all(letter)).then(|| Self(text.to_owned()))
    }

    /// The id in a question that is malformed otherwise: its host may wait for an answer that names it.
    pub(super) fn find(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Named {
            request_id: String,
        }
        let bytes = bytes.get(..bytes.len().min(MAX_QUESTION))?;
        serde_json::from_slice::<Named>(bytes).ok().and_then(|named| Self::parse(&named.request_id))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl ComponentWire {
    fn artifact(self) -> Result<Artifact, Malformed> {
        let Self { component_id, image_ref, max_instances: _, annotations, claims } = self;
        artifact(component_id, image_ref.parse()?, annotations, claims)
    }
}

impl ProviderWire {
    fn artifact(self) -> Result<Artifact, Malformed> {
        let Self { provider_id, image_ref, annotations, claims } = self;
        artifact(provider_id, ImageReference::of_provider(&image_ref)?, annotations, claims)
    }
}

fn artifact(
    id: String,
    image: ImageReference,
    annotations: Option<BTreeMap<String, String>>,
    claims: Option<ClaimsWire>,
) -> Result<Artifact, Malformed> {
    id.parse::<ComponentId>().map_err(|error| Malformed::Id(short(&error)))?;
    let annotations = bounded("the annotations", annotations.unwrap_or_default())?;
    let claims = claims.map(|ClaimsWire { public_key, issuer, expired }| {
        let short = public_key.len() <= MAX_NAME && issuer.len() <= MAX_NAME;
        short.then_some(ArtifactClaims { public_key, issuer, expired }).ok_or(Malformed::Texts("the claims"))
    });
    Ok(Artifact { id, image, annotations, claims: claims.transpose()? })
}

fn bounded(what: &'static str, texts: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Malformed> {
    let short = |(name, value): (&String, &String)| name.len() <= MAX_NAME && value.len() <= MAX_VALUE;
    if texts.len() <= MAX_TEXTS && texts.iter().all(short) { Ok(texts) } else { Err(Malformed::Texts(what)) }
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| Malformed::Json(short(&error)))
}

fn of_kind<T: serde::de::DeserializeOwned>(request: Value) -> Result<T, Malformed> {
    serde_json::from_value(request).map_err(|error| Malformed::Json(short(&error)))
}

/// What an error says, without what a log or a host's screen could take for something else.
fn short(error: &dyn std::fmt::Display) -> String {
    error.to_string().chars().take(MAX_REASON).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What a host is told. It keeps a decision as long as it runs, and everything else not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Go on.
    Permitted,
    /// Do not, and why.
    Denied(String),
    /// Nothing was decided: the host does not go on, and asks again when it wants to.
    Undecided(&'static str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerWire<'a> {
    request_id: &'a str,
    /// A host takes nothing for a decision but `true` and `false`.
    permitted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl Answer {
    /// The answer to a request; without an id where it could not be found.
    pub(super) fn to_bytes(&self, request: Option<&RequestId>) -> Vec<u8> {
        let (permitted, message) = match self {
            Self::Permitted => (Some(true), None),
            Self::Denied(message) => (Some(false), Some(message.as_str())),
            Self::Undecided(message) => (None, Some(*message)),
        };
        let message = message.map(|text| text.get(..text.floor_char_boundary(MAX_MESSAGE)).unwrap_or_default());
        let request_id = request.map_or("", RequestId::as_str);
        // Three plain fields: writing them does not fail.
        serde_json::to_vec(&AnswerWire { request_id, permitted, message }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_policy::ImageSource;
    use serde_json::json;

    use super::*;

    const ID: &str = "01a201d6-7464-0000-0000-000000000000";

    /// As a 1.9.2 host was heard to ask.
    fn start() -> Value {
        json!({"requestId": ID, "kind": "startComponent", "version": "v1",
            "request": {"componentId": "app", "imageRef": "ghcr.io/acme/app:1", "maxInstances": 5, "annotations": {"k": "v"}, "claims": null},
            "host": {"publicKey": "NAL44", "lattice": "default", "labels": {"hostcore.os": "linux"}}})
    }

    fn parse(value: &Value) -> Result<Question, Malformed> {
        Question::parse(value.to_string().as_bytes())
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut question = start();
        *question.pointer_mut(pointer).unwrap() = value;
        question
    }

    #[test]
    fn the_three_questions_of_hosts_are_read() {
        let question = parse(&start()).unwrap();
        assert_eq!((question.request.as_str(), question.lattice.to_string()), (ID, "default".to_owned()));
        let host = portcullis_identity::parse_spiffe_id("spiffe://acme.test/host/one").unwrap();
        let admission = question.admission(Some(&host));
        assert_eq!(admission.action, AdmissionAction::StartComponent { max_instances: 5 });
        assert_eq!((admission.artifact.id.as_str(), admission.artifact.annotations["k"].as_str()), ("app", "v"));
        assert_eq!(admission.host.spiffe_id.as_deref(), Some("spiffe://acme.test/host/one"));
        assert_eq!(admission.host.labels["hostcore.os"], "linux");

        let claims = json!({"publicKey": "M", "issuer": "A", "issuedAt": "x", "expiresAt": 7, "expired": false});
        let provider = json!({"providerId": "http", "imageRef": "http-server", "annotations": {}, "claims": claims});
        let mut asked = with("/kind", json!("startProvider"));
        asked["request"] = provider;
        let admission = parse(&asked).unwrap().admission(None);
        assert_eq!((admission.action.name(), admission.host.spiffe_id.as_deref()), ("startProvider", None));
        assert_eq!(*admission.artifact.image.source(), ImageSource::Builtin);
        assert_eq!(admission.artifact.claims.unwrap().issuer, "A");

        let mut asked = with("/kind", json!("performInvocation"));
        asked["request"] = json!({"interface": "a:b/c@1.0.0", "function": "run", "target": start()["request"]});
        let admission = parse(&asked).unwrap().admission(None);
        let (interface, function) = ("a:b/c@1.0.0".to_owned(), "run".to_owned());
        assert_eq!(admission.action, AdmissionAction::PerformInvocation { interface, function });
    }

    #[test]
    fn what_is_no_question_is_refused_with_the_reason() {
        let many = |count: usize| json!((0..count).map(|n| (n.to_string(), "x")).collect::<BTreeMap<_, _>>());
        for (pointer, value, expected) in [
            ("/version", json!("v2"), Malformed::Version),
            ("/kind", json!("unknown"), Malformed::Kind),
            ("/requestId", json!(""), Malformed::RequestId),
            ("/requestId", json!("a.b"), Malformed::RequestId),
            ("/requestId", json!("a".repeat(65)), Malformed::RequestId),
            ("/host/publicKey", json!("N\""), Malformed::HostKey),
            ("/host/labels", many(65), Malformed::Texts("the host's labels")),
            ("/host/labels", json!({"a": "x".repeat(1025)}), Malformed::Texts("the host's labels")),
            ("/request/annotations", json!({"x".repeat(257): ""}), Malformed::Texts("the annotations")),
            ("/request/imageRef", json!("a b"), InvalidImage::Text.into()),
        ] {
            assert_eq!(parse(&with(pointer, value)).unwrap_err(), expected, "{pointer}");
        }
        for (pointer, value) in [
            ("/request/componentId", json!("a.b")),
            ("/request/componentId", json!("vc")),
            ("/host/lattice", json!("a b")),
            ("/request/maxInstances", json!(-1)),
            ("/request", json!([])),
            ("/host", json!(null)),
        ] {
            parse(&with(pointer, value)).unwrap_err();
        }
        parse(&with("/host/labels", many(64))).unwrap();
        assert_eq!(Question::parse(&vec![b' '; MAX_QUESTION + 1]).unwrap_err(), Malformed::TooLarge(MAX_QUESTION + 1));
        for bytes in [&b""[..], b"{", b"\xff\xfe", b"null", b"[[[[[[[[[["] {
            assert!(matches!(Question::parse(bytes), Err(Malformed::Json(_))));
        }
    }

    #[test]
    fn a_malformed_question_is_answered_under_its_id_where_it_has_one() {
        let find = |value: Value| RequestId::find(value.to_string().as_bytes()).map(|id| id.as_str().to_owned());
        assert_eq!(find(with("/version", json!("v2"))), Some(ID.to_owned()));
        assert_eq!(find(json!({"requestId": "x y"})), None);
        assert_eq!(RequestId::find(b"nonsense"), None);
    }

    #[test]
    fn answers_are_those_that_hosts_read() {
        let id = RequestId::parse(ID).unwrap();
        let told = |answer: Answer| serde_json::from_slice::<Value>(&answer.to_bytes(Some(&id))).unwrap();
        assert_eq!(told(Answer::Permitted), json!({"requestId": ID, "permitted": true}));
        let denied = json!({"requestId": ID, "permitted": false, "message": "no"});
        assert_eq!(told(Answer::Denied("no".to_owned())), denied);
        let undecided = json!({"requestId": ID, "permitted": null, "message": "busy"});
        assert_eq!(told(Answer::Undecided("busy")), undecided);
        let long = told(Answer::Denied("ä".repeat(500)));
        assert_eq!(long["message"].as_str().unwrap().len(), MAX_MESSAGE);
        let nameless: Value = serde_json::from_slice(&Answer::Permitted.to_bytes(None)).unwrap();
        assert_eq!(nameless["requestId"], "");
    }
}
