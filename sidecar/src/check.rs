//! `portcullis-sidecar check`: everything that can be known offline, every mistake at once.

use std::path::Path;

use portcullis_api::read_wit_folder;
use portcullis_api::v1::WitFile;
use portcullis_client::node::{CertificateFiles, SealKeyError};
use portcullis_policy::{Component, Interface, ParamsReadable, PolicyFile, PolicySet, Schema};
use portcullis_value::{FunctionKind, Wit, WitSource};
use serde::Serialize;

use crate::component::seal_key;
use crate::config::{Config, Mistake, NatsSection, NodeSection, Program, StreamEncoding, UpstreamSection};
use crate::upstream::Upstream;

/// What was found to be right.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Checked {
    /// `LATTICE/ID`; empty for an agent.
    pub component: String,
    /// Interfaces of the WIT folder.
    pub interfaces: usize,
    /// Their functions.
    pub functions: usize,
    /// Policies that were checked.
    pub policies: usize,
    /// What could not be checked, and why.
    pub skipped: Vec<String>,
}

/// Checks a configuration, and the WIT folder, the mapping and the policies that it names.
///
/// # Errors
/// Every mistake, with file and line.
pub fn check(path: &Path) -> Result<Checked, Vec<Mistake>> {
    let config = match Program::load(path)? {
        Program::Sidecar(config) => *config,
        Program::Agent(config) => {
            let mut mistakes = Vec::new();
            check_node(&config.node, path, &mut mistakes);
            return finished(Checked::default(), mistakes);
        }
    };
    let mut mistakes = Vec::new();
    let mut checked = Checked { component: config.component.target.to_string(), ..Checked::default() };
    let upstream = Upstream::open(&config.upstream).map_err(|more| mistakes.extend(more)).ok();
    check_node(&config.node, path, &mut mistakes);
    if let Some(Err(error)) = config.nats.as_ref().map(NatsSection::settings) {
        mistakes.push(mistake(path, &error));
    }
    let Some(folder) = &config.component.wit else {
        checked.skipped.push("mapping and policies: `component.wit` names no WIT folder".to_owned());
        return finished(checked, mistakes);
    };
    if let Some(wit) = wit(folder, &mut mistakes) {
        checked.interfaces = wit.interfaces().len();
        checked.functions = wit.interfaces().map(|interface| interface.functions.len()).sum();
        let interfaces: Vec<_> = wit.interfaces().map(|interface| interface.name.clone()).collect();
        if let Some(Err(problems)) = upstream.as_ref().and_then(|upstream| upstream.mapping(&wit, &interfaces)) {
            mistakes.extend(problems.into_iter().map(Mistake::from));
        }
        match &config.upstream {
            UpstreamSection::Http(_) => opaque(&wit, folder, &mut mistakes),
            UpstreamSection::Splice(splice) if config.nats.is_some() => {
                streams(&wit, splice.streams, path, &mut mistakes)
            }
            UpstreamSection::Splice(_) => {}
        }
        checked.policies = policies(&config, &wit, &mut mistakes);
    }
    finished(checked, mistakes)
}

/// How the node joins, and the key of its cache.
fn check_node(node: &NodeSection, path: &Path, mistakes: &mut Vec<Mistake>) {
    if let Some(token) = &node.join_token_file
        && let Err(error) = crate::daemon::join_token(token)
    {
        mistakes.push(mistake(token, &error));
    }
    if let Some(Err(error)) = node.certificate.as_ref().map(CertificateFiles::read) {
        mistakes.push(mistake(path, &error));
    }
    mistakes.extend(bad_seal_key(node).map(|error| mistake(path, &error)));
}

/// A key that is not here may be where the program runs; one that is here has to be good.
fn bad_seal_key(node: &NodeSection) -> Option<SealKeyError> {
    seal_key(node).err().filter(|error| matches!(error, SealKeyError::Exposed { .. } | SealKeyError::Invalid { .. }))
}

fn finished(checked: Checked, mistakes: Vec<Mistake>) -> Result<Checked, Vec<Mistake>> {
    if mistakes.is_empty() { Ok(checked) } else { Err(mistakes) }
}

fn wit(folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<Wit> {
    let files = read_wit_folder(folder).map_err(|error| mistakes.push(mistake(folder, &error))).ok()?;
    let sources: Vec<_> = files.into_iter().map(|WitFile { path, text }| WitSource { path, text }).collect();
    Wit::parse(&sources)
        .map_err(|error| {
            let file = folder.join(&error.file).display().to_string();
            mistakes.push(Mistake { file, line: Some(error.line), message: error.message, hint: None });
        })
        .ok()
}

/// HTTP carries values: functions with streams or resources have no route.
fn opaque(wit: &Wit, folder: &Path, mistakes: &mut Vec<Mistake>) {
    for interface in wit.interfaces() {
        for function in &interface.functions {
            if let FunctionKind::Opaque(why) = &function.kind {
                let message = format!("`{}#{}` cannot be carried over HTTP: {why}", interface.name, function.name);
                let hint = Some("use [upstream.splice], or leave the interface out of the registration".to_owned());
                mistakes.push(Mistake { file: folder.display().to_string(), line: None, message, hint });
            }
        }
    }
}

/// Hosts read streams as wRPC 0.29 writes them, and nothing on the wire says how a service does.
fn streams(wit: &Wit, encoding: Option<StreamEncoding>, path: &Path, mistakes: &mut Vec<Mistake>) {
    let answers = |interface: &&portcullis_value::Interface| {
        interface.functions.iter().any(|function| function.streams.in_result)
    };
    let Some(interface) = wit.interfaces().find(answers) else { return };
    let (message, hint) = match encoding {
        Some(StreamEncoding::V029) => return,
        Some(StreamEncoding::V030) => {
            let message = "callers over NATS cannot read the streams of a service that writes them as wRPC 0.30 does";
            (
                message,
                "build the service with wRPC 0.29, or leave [nats] out: over QUIC the caller may be of its version",
            )
        }
        None => {
            let message = "nothing says how the service writes streams, and callers over NATS cannot tell";
            (message, "say `streams = \"0.29\"` under [upstream.splice] if it is built with wRPC 0.29 or before")
        }
    };
    let message = format!("`{}` answers with streams: {message}", interface.name);
    mistakes.push(Mistake { file: path.display().to_string(), line: None, message, hint: Some(hint.to_owned()) });
}

fn policies(config: &Config, wit: &Wit, mistakes: &mut Vec<Mistake>) -> usize {
    let mut files = Vec::new();
    for path in &config.component.policies {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push(PolicyFile { name: path.display().to_string(), text }),
            Err(error) => mistakes.push(mistake(path, &error)),
        }
    }
    let target = &config.component.target;
    let component = Component {
        lattice: target.lattice.to_string(),
        id: target.id.to_string(),
        interfaces: wit.interfaces().map(Interface::from).collect(),
        params: match config.upstream {
            UpstreamSection::Http(_) => ParamsReadable::Decoded,
            UpstreamSection::Splice(_) => ParamsReadable::Opaque,
        },
    };
    let schema = match Schema::new(&[component]) {
        Ok(schema) => schema,
        Err(error) => {
            mistakes.push(Mistake { file: target.to_string(), line: None, message: error.to_string(), hint: None });
            return 0;
        }
    };
    match PolicySet::parse(&files, &schema) {
        Ok(set) => set.len(),
        Err(problems) => {
            mistakes.extend(problems.into_iter().map(Mistake::from));
            0
        }
    }
}

fn mistake(path: &Path, error: &dyn std::fmt::Display) -> Mistake {
    Mistake { file: path.display().to_string(), line: None, message: error.to_string(), hint: None }
}

impl From<portcullis_policy::Problem> for Mistake {
    fn from(problem: portcullis_policy::Problem) -> Self {
        let portcullis_policy::Problem { file, line, message, hint, .. } = problem;
        Self { file, line: Some(line), message, hint }
    }
}

impl From<crate::http::MappingProblem> for Mistake {
    fn from(problem: crate::http::MappingProblem) -> Self {
        let crate::http::MappingProblem { file, line, message, hint } = problem;
        Self { file, line, message, hint }
    }
}
