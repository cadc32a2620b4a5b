//! Entries that templates make of what this node attested.

use portcullis_api::v1;
use tonic::Code;

use super::{Node, SIGN_DEADLINE, SignError, lock};

impl Node {
    /// Has the entry made that `template` has for a workload of which `values` were attested, in the order of the template's variables. The entry
    /// itself comes with a later [`Node::state`].
    ///
    /// # Errors
    /// When the broker cannot be asked, or refuses.
    pub async fn fill(&self, template: String, values: Vec<String>) -> Result<(), SignError> {
        let client = lock(&self.shared.client).clone();
        let mut client = client.ok_or(SignError::Offline)?;
        let asked = client.fill(v1::FillRequest { template, values });
        let reply = tokio::time::timeout(SIGN_DEADLINE, asked).await.map_err(|_| SignError::Offline)?;
        reply.map(drop).map_err(|status| {
            let unheard = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
            if unheard { SignError::Offline } else { SignError::Refused(status.message().to_owned()) }
        })
    }
}
