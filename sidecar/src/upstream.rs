//! What a permitted call is forwarded to. Forwarding asks for a [`portcullis_policy::Permit`].

mod splice;

use portcullis_client::node::UpstreamKind;
use portcullis_value::Wit;
use portcullis_value::json::Int64;

pub(crate) use splice::{Connection, Ended, Expected, Patience, Progress, Splice, Spliced};

use crate::config::{HttpSection, Mistake, UpstreamSection};
use crate::http::{HttpConfigMistake, HttpUpstream, HttpUpstreamConfig, Mapping, MappingProblem};

/// The one upstream of a sidecar.
#[derive(Debug)]
pub(crate) enum Upstream {
    Http(Box<Http>),
    Splice(Splice),
}

/// The HTTP client and the mapping file's text, read once at the start.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) client: HttpUpstream,
    mapping: Option<(String, String)>,
}

impl Upstream {
    /// Opens what the configuration names; connects to nothing yet.
    pub(crate) fn open(section: &UpstreamSection) -> Result<Self, Vec<Mistake>> {
        match section {
            UpstreamSection::Http(http) => Http::open(http).map(Box::new).map(Self::Http),
            UpstreamSection::Splice(splice) => Ok(Self::Splice(Splice::new(splice))),
        }
    }

    pub(crate) fn kind(&self) -> UpstreamKind {
        match self {
            Self::Http(_) => UpstreamKind::Typed,
            Self::Splice(_) => UpstreamKind::Splice,
        }
    }

    /// The routes for these interfaces; nothing where calls are spliced.
    pub(crate) fn mapping(&self, wit: &Wit, interfaces: &[String]) -> Option<Result<Mapping, Vec<MappingProblem>>> {
        match self {
            Self::Http(http) => Some(http.mapping(wit, interfaces)),
            Self::Splice(_) => None,
        }
    }
}

impl Http {
    fn open(section: &HttpSection) -> Result<Self, Vec<Mistake>> {
        let mistake = |file: String, message: String| Mistake { file, line: None, message, hint: None };
        let mapping = match &section.mapping {
            None => None,
            Some(path) => {
                let file = path.display().to_string();
                match std::fs::read_to_string(path) {
                    Ok(text) => Some((file, text)),
                    Err(error) => return Err(vec![mistake(file, format!("cannot be read: {error}"))]),
                }
            }
        };
        let config = client_config(section);
        let client = HttpUpstream::new(&config).map_err(|mistakes| {
            let key = |key: &str| {
                if key == "base_url" { "url".to_owned() } else { key.to_owned() }
            };
            let told = mistakes.into_iter().map(|HttpConfigMistake { key: field, message, hint }| Mistake {
                file: format!("upstream.http.{}", key(field)),
                line: None,
                message,
                hint: hint.map(str::to_owned),
            });
            told.collect::<Vec<_>>()
        })?;
        Ok(Self { client, mapping })
    }

    fn mapping(&self, wit: &Wit, interfaces: &[String]) -> Result<Mapping, Vec<MappingProblem>> {
        let mapping = match &self.mapping {
            Some((file, text)) => Mapping::parse(file, text, wit, interfaces),
            None => Mapping::default_for(wit, interfaces),
        }?;
        self.client.check(&mapping)?;
        Ok(mapping)
    }
}

fn client_config(section: &HttpSection) -> HttpUpstreamConfig {
    let HttpSection {
        url,
        mapping: _,
        ca_file,
        headers,
        credentials_file,
        caller_header,
        timeout,
        connect_timeout,
        idle_timeout,
        max_response_bytes,
        max_idle,
        int64_as_string,
    } = section.clone();
    HttpUpstreamConfig {
        base_url: url,
        ca_file,
        headers,
        credentials_file,
        caller_header,
        int64: if int64_as_string { Int64::String } else { Int64::Number },
        timeout,
        connect_timeout,
        idle_timeout,
        max_response_bytes,
        max_idle,
    }
}
