//! `explain`: the decision of a component's sidecar, asked of the broker.

use std::path::PathBuf;

use clap::Args;
use portcullis_api::v1;
use portcullis_identity::Target;
use serde::Serialize;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{connect, target_message};
use super::screen::Screen;

/// Say whether a call would be allowed, and by which policies. Exit code 0: allowed; 3: denied.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  portcullis-broker explain spiffe://acme.test/component/prod/checkout prod/billing 'acme:billing/invoices@1.0.0#get' \\
      --params '{\"customer\": \"c-7\"}'")]
pub(crate) struct Explain {
    /// The caller's SPIFFE ID
    principal: String,
    /// The callee: LATTICE/ID
    target: Target,
    /// INTERFACE#FUNCTION, for instance acme:billing/invoices@1.0.0#get
    function: String,
    /// The call's parameters as a JSON object, where policies read them
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
    /// How the call comes in: quic or nats
    #[arg(long, default_value = "quic")]
    transport: String,
    #[command(flatten)]
    options: OperatorOptions,
}

/// A decision in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Decision {
    allowed: bool,
    summary: String,
    reasons: Vec<Reason>,
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Reason {
    policy: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

impl Explain {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let Some((instance, function)) = self.function.split_once('#') else {
            return Err(Failure::misused(format!("`{}` is not a function: write INTERFACE#FUNCTION", self.function)));
        };
        let request = v1::ExplainRequest {
            principal: self.principal,
            target: Some(target_message(&self.target)),
            instance: instance.to_owned(),
            function: function.to_owned(),
            params_json: self.params.unwrap_or_default(),
            transport: self.transport,
        };
        let reply = connect(&self.options, socket).await?.explain(request).await?.into_inner();
        Decision::from(reply).show(&self.options, screen)
    }
}

impl From<v1::ExplainReply> for Decision {
    fn from(reply: v1::ExplainReply) -> Self {
        let v1::ExplainReply { allowed, reasons, errors, summary } = reply;
        let reasons = reasons.into_iter().map(|v1::Reason { policy, advice }| Reason { policy, advice }).collect();
        Self { allowed, summary, reasons, errors }
    }
}

impl Decision {
    /// Prints it; a denial is the command's failure.
    pub(super) fn show(&self, options: &OperatorOptions, screen: &mut Screen) -> Result<(), Failure> {
        if options.json {
            screen.json(self)?;
        } else {
            screen.line(&self.summary)?;
            self.errors.iter().try_for_each(|error| screen.line(format!("  {error}")))?;
        }
        if self.allowed { Ok(()) } else { Err(Failure::refused_silently()) }
    }
}
