//! `grant`: callers granted on a component, as data that policies read (`resource.grants`).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portcullis_api::v1;
use portcullis_identity::Target;

use super::OperatorOptions;
use super::failure::Failure;
use super::operator::{Changed, connect, target_message, version_name};
use super::screen::Screen;

#[derive(Debug, Subcommand)]
#[command(after_help = "A grant alone permits nothing: a policy has to read it, for instance
  permit (principal is Workload, action, resource == VirtualComponent::\"prod/billing\")
  when { resource.grants.contains(principal) };

Example:
  portcullis-broker grant add prod/billing spiffe://acme.test/component/prod/checkout")]
pub(crate) enum Grant {
    /// Grant a caller on a component
    Add(Caller),
    /// Take a grant back
    Remove(Caller),
}

#[derive(Debug, Args)]
pub(crate) struct Caller {
    /// The callee: LATTICE/ID
    target: Target,
    /// The caller's SPIFFE ID; it may be of another trust domain
    spiffe_id: String,
    #[command(flatten)]
    options: OperatorOptions,
}

impl Grant {
    pub(crate) async fn execute(self, socket: Option<PathBuf>, screen: &mut Screen) -> Result<(), Failure> {
        let (caller, granted, done) = match self {
            Self::Add(caller) => (caller, true, "is granted on"),
            Self::Remove(caller) => (caller, false, "is no longer granted on"),
        };
        let Caller { target, spiffe_id, options } = caller;
        let request =
            v1::ChangeGrantRequest { target: Some(target_message(&target)), spiffe_id: spiffe_id.clone(), granted };
        let reply = connect(&options, socket).await?.change_grant(request).await?.into_inner();
        if options.json {
            return screen.json(&Changed { version: version_name(reply.version) });
        }
        screen.line(format!("{spiffe_id} {done} {target}"))
    }
}
