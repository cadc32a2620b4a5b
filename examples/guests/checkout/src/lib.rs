//! The checkout of a shop: asks the billing service what a customer owes, pays an invoice, makes one void.
//!
//! It knows WIT and nothing else: not that the billing service is no component, not where it runs, not over what the call travels.

use acme::billing::invoices::{self, Error, Method, Payment, Status};
use exports::acme::checkout::orders::Guest;

wit_bindgen::generate!({
    path: ["../../invoices/wit", "wit"],
    world: "acme:checkout/checkout",
    generate_all,
});

struct Checkout;

impl Guest for Checkout {
    fn total(customer: String) -> Result<u64, String> {
        let page = invoices::search(Some(&customer), Some(Status::Open), 100).map_err(reason)?;
        Ok(page.invoices.iter().map(|invoice| invoice.total).sum())
    }

    fn pay(invoice_id: String) -> Result<String, String> {
        let invoice = invoices::get(&invoice_id).map_err(reason)?;
        let payment = Payment { amount: invoice.total, method: Method::Card };
        let receipt = invoices::pay(&invoice_id, payment).map_err(reason)?;
        Ok(receipt.number)
    }

    fn cancel(invoice_id: String) -> Result<String, String> {
        let invoice = invoices::cancel(&invoice_id, "the customer changed their mind").map_err(reason)?;
        Ok(invoice.id)
    }
}

/// What the shop says when the billing service did not do what was asked.
fn reason(error: Error) -> String {
    match error {
        Error::NotFound(text) | Error::Refused(text) | Error::Invalid(text) => text,
    }
}

export!(Checkout);
