//! A provider as `wasmcloud-provider-sdk` makes one. It answers for the billing service of another age, and asks every component that it is
//! linked to what `acme` owes.

use std::sync::Arc;

use futures::StreamExt as _;
use wasmcloud_provider_sdk::{LinkConfig, Provider, get_connection, run_provider};
use wrpc_transport::{InvokeExt as _, ServeExt as _};

const INVOICES: &str = "acme:billing/invoices@1.0.0";
const ORDERS: &str = "acme:checkout/orders@1.0.0";

/// Positions of an invoice: item, quantity, price.
type Lines = Vec<(String, u32, u64)>;
/// Id, customer, status, lines, total, due, note.
type Invoice = (String, String, u8, Lines, u64, Option<String>, Option<String>);
/// Invoices, and how many there are.
type Page = (Vec<Invoice>, u32);

struct Ledger;

impl Provider for Ledger {
    async fn receive_link_config_as_source(&self, link: LinkConfig<'_>) -> anyhow::Result<()> {
        let target = link.target_id.to_owned();
        tokio::spawn(async move {
            let answer = total(&target).await;
            eprintln!("{target} says that acme owes {answer:?}");
        });
        Ok(())
    }
}

async fn total(target: &str) -> anyhow::Result<Result<u64, String>> {
    let client = get_connection().get_wrpc_client(target).await?;
    let none: [[Option<usize>; 0]; 0] = [];
    let customer = ("acme".to_owned(),);
    let (answer,) = client.invoke_values_blocking(None, ORDERS, "total", customer, none).await?;
    Ok(answer)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shutdown = run_provider(Ledger, "ledger").await?;
    let connection = get_connection();
    let client = connection.get_wrpc_client(connection.provider_key()).await?;
    let none: Arc<[Box<[Option<usize>]>]> = Arc::default();
    let served =
        client.serve_values::<(Option<String>, Option<u8>, u32), (Result<Page, String>,)>(INVOICES, "search", none);
    let calls = served.await?;
    eprintln!("the provider serves");
    let answering = calls.for_each(|call| async {
        let answered = match call {
            Ok((_, (customer, ..), _, answer)) => answer((Ok(page(customer)),)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            eprintln!("a call was not answered: {error:#}");
        }
    });
    tokio::select! {
        () = answering => anyhow::bail!("the provider is called no more"),
        () = shutdown => Ok(()),
    }
}

/// One open invoice.
fn page(customer: Option<String>) -> Page {
    let line = ("quill".to_owned(), 6, 7);
    (vec![("INV-1".to_owned(), customer.unwrap_or_default(), 0, vec![line], 42, None, None)], 1)
}
