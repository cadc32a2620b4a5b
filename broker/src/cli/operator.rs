//! The way to the broker's operator service.

use std::path::PathBuf;

use portcullis_api::v1::operator_client::OperatorClient;
use portcullis_api::{MAX_MESSAGE_BYTES, connect_operator, v1};
use portcullis_broker::config::{DEFAULT_DATA_FOLDER, OPERATOR_SOCKET};
use portcullis_identity::Target;
use serde::Serialize;
use tonic::transport::Channel;

use super::OperatorOptions;
use super::failure::Failure;

/// A client of the operator service.
pub(crate) type Operator = OperatorClient<Channel>;

/// Connects to the socket that the arguments name, else the environment, else the default data folder.
pub(crate) async fn connect(options: &OperatorOptions, environment: Option<PathBuf>) -> Result<Operator, Failure> {
    let default = || PathBuf::from(DEFAULT_DATA_FOLDER).join(OPERATOR_SOCKET);
    let path = options.socket.clone().or(environment).unwrap_or_else(default);
    let channel = connect_operator(&path).await.map_err(|error| {
        Failure::broken(format!("{error}; is it running? --socket or PORTCULLIS_BROKER_SOCKET say where"))
    })?;
    Ok(OperatorClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// The message of a target.
pub(crate) fn target_message(target: &Target) -> v1::Target {
    v1::Target { lattice: target.lattice.to_string(), id: target.id.to_string() }
}

/// A target's name, as people write it.
pub(crate) fn target_name(target: Option<&v1::Target>) -> String {
    target.map(|target| format!("{}/{}", target.lattice, target.id)).unwrap_or_default()
}

/// `INCARNATION.EPOCH`, as people write it.
pub(crate) fn version_name(version: Option<v1::Version>) -> String {
    version.map(|version| format!("{}.{}", version.incarnation, version.epoch)).unwrap_or_default()
}

/// The answer to a command that only changes something.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    /// The registry's version now.
    pub(crate) version: String,
}
