//! The invoices and what may be done with them. Pure: no HTTP, no clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most invoices one search lists.
pub const SEARCH_LIMIT: usize = 100;

/// Where an invoice is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Sent and not paid.
    Open,
    /// Paid in full.
    Paid,
    /// Taken back.
    Void,
}

impl Status {
    /// The status by its name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Open, Self::Paid, Self::Void].into_iter().find(|status| status.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Void => "void",
        }
    }
}

/// One position of an invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was sold.
    pub item: String,
    /// How many.
    pub quantity: u32,
    /// Cents for one.
    pub price: u64,
}

/// An invoice as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// `INV-` and a number.
    pub id: String,
    /// Who owes it.
    pub customer: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its positions.
    pub lines: Vec<Line>,
    /// Cents, the sum of all lines.
    pub total: u64,
    /// The day it is due, as `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Why it is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a new invoice is made from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Draft {
    /// Who owes it.
    pub customer: String,
    /// Its positions, at least one.
    pub lines: Vec<Line>,
    /// The day it is due, as `YYYY-MM-DD`.
    #[serde(default)]
    pub due: Option<String>,
}

/// How a customer pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By card.
    Card,
    /// By bank transfer.
    Transfer,
}

/// Money that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Payment {
    /// Cents.
    pub amount: u64,
    /// How it came.
    pub method: Method,
}

/// What is given for a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// `REC-` and a number.
    pub number: String,
    /// The invoice that is paid.
    pub invoice: String,
    /// Cents.
    pub amount: u64,
}

/// Which invoices a search is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Those of this customer only.
    pub customer: Option<String>,
    /// Those with this status only.
    pub status: Option<Status>,
    /// How many to list at most.
    pub limit: usize,
}

/// Invoices that matched a search, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page {
    /// As many as the limit let through.
    pub invoices: Vec<Invoice>,
    /// How many matched in all.
    pub matched: usize,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// There is no such invoice.
    #[error("there is no invoice `{0}`")]
    NotFound(String),
    /// The invoice is not in a state that allows it.
    #[error("{0}")]
    Refused(String),
    /// What was sent makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// All invoices, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    invoices: BTreeMap<u32, Invoice>,
    receipts: u32,
}

impl Ledger {
    const FIRST: u32 = 1001;

    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ledger with a little history: three invoices of `acme`, one of them paid, and one of `globex`.
    pub fn with_history() -> Self {
        let mut ledger = Self::new();
        let history = [
            ("acme", "anvil", 2, 4_500, Status::Open),
            ("acme", "rocket skates", 1, 12_900, Status::Open),
            ("acme", "bird seed", 40, 25, Status::Paid),
            ("globex", "hammock", 3, 9_900, Status::Open),
        ];
        for (number, (customer, item, quantity, price, status)) in (Self::FIRST..).zip(history) {
            let invoice = Invoice {
                id: invoice_id(number),
                customer: customer.to_owned(),
                status,
                lines: vec![Line { item: item.to_owned(), quantity, price }],
                total: u64::from(quantity) * price,
                due: Some("2026-12-31".to_owned()),
                note: None,
            };
            ledger.invoices.insert(number, invoice);
        }
        ledger
    }

    /// One invoice.
    ///
    /// # Errors
    /// [`Objection::NotFound`].
    pub fn get(&self, id: &str) -> Result<&Invoice, Objection> {
        number(id).and_then(|number| self.invoices.get(&number)).ok_or_else(|| Objection::NotFound(id.to_owned()))
    }

    /// The invoices that match, oldest first.
    pub fn search(&self, search: &Search) -> Page {
        let matching = || {
            self.invoices
                .values()
                .filter(|invoice| search.customer.as_ref().is_none_or(|customer| invoice.customer == *customer))
                .filter(|invoice| search.status.is_none_or(|status| invoice.status == status))
        };
        let limit = search.limit.min(SEARCH_LIMIT);
        Page { invoices: matching().take(limit).cloned().collect(), matched: matching().count() }
    }

    /// A new invoice, open.
    ///
    /// # Errors
    /// [`Objection::Invalid`]: no customer, no line, a date that is none, a sum beyond 64 bits.
    pub fn create(&mut self, draft: Draft) -> Result<&Invoice, Objection> {
        let Draft { customer, lines, due } = draft;
        if customer.is_empty() {
            return Err(Objection::Invalid("an invoice needs a customer".to_owned()));
        }
        if lines.is_empty() {
            return Err(Objection::Invalid("an invoice needs a line".to_owned()));
        }
        if let Some(due) = due.as_ref().filter(|due| !is_date(due)) {
            return Err(Objection::Invalid(format!("`{due}` is no date: write it as YYYY-MM-DD")));
        }
        let total = lines
            .iter()
            .try_fold(0_u64, |sum, line| sum.checked_add(line.price.checked_mul(u64::from(line.quantity))?))
            .ok_or_else(|| Objection::Invalid("the total is too large".to_owned()))?;
        let number = self.invoices.last_key_value().map_or(Self::FIRST, |(last, _)| last.saturating_add(1));
        let id = invoice_id(number);
        let invoice = Invoice { id, customer, status: Status::Open, lines, total, due, note: None };
        Ok(self.invoices.entry(number).or_insert(invoice))
    }

    /// Pays an open invoice in full.
    ///
    /// # Errors
    /// [`Objection::NotFound`]; [`Objection::Refused`] where it is not open or the amount is not its total.
    pub fn pay(&mut self, id: &str, payment: Payment) -> Result<Receipt, Objection> {
        let receipts = self.receipts.saturating_add(1);
        let invoice = self.open_invoice(id)?;
        if payment.amount != invoice.total {
            let total = invoice.total;
            return Err(Objection::Refused(format!(
                "invoice `{id}` is paid in full or not at all: it is {total} cents"
            )));
        }
        invoice.status = Status::Paid;
        let receipt = Receipt { number: format!("REC-{receipts}"), invoice: id.to_owned(), amount: payment.amount };
        self.receipts = receipts;
        Ok(receipt)
    }

    /// Makes an open invoice void, for good.
    ///
    /// # Errors
    /// [`Objection::NotFound`]; [`Objection::Refused`] where it is not open.
    pub fn void(&mut self, id: &str, reason: String) -> Result<&Invoice, Objection> {
        let invoice = self.open_invoice(id)?;
        invoice.status = Status::Void;
        invoice.note = Some(reason).filter(|reason| !reason.is_empty());
        Ok(invoice)
    }

    fn open_invoice(&mut self, id: &str) -> Result<&mut Invoice, Objection> {
        let invoice = number(id)
            .and_then(|number| self.invoices.get_mut(&number))
            .ok_or_else(|| Objection::NotFound(id.to_owned()))?;
        match invoice.status {
            Status::Open => Ok(invoice),
            Status::Paid | Status::Void => {
                Err(Objection::Refused(format!("invoice `{id}` is {}", invoice.status.name())))
            }
        }
    }
}

fn invoice_id(number: u32) -> String {
    format!("INV-{number}")
}

/// The number in an id; `None` for everything that [`invoice_id`] does not write.
fn number(id: &str) -> Option<u32> {
    let number = id.strip_prefix("INV-")?.parse().ok()?;
    (invoice_id(number) == id).then_some(number)
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts.as_slice(), [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(customer: Option<&str>, status: Option<Status>, limit: usize) -> Search {
        Search { customer: customer.map(str::to_owned), status, limit }
    }

    fn draft() -> Draft {
        let line = Line { item: "tnt".to_owned(), quantity: 3, price: 700 };
        Draft { customer: "acme".to_owned(), lines: vec![line], due: None }
    }

    #[test]
    fn a_search_keeps_to_customer_status_and_limit() {
        let ledger = Ledger::with_history();
        assert_eq!(ledger.search(&search(None, None, 10)).matched, 4);
        assert_eq!(ledger.search(&search(Some("acme"), Some(Status::Open), 10)).matched, 2);
        let page = ledger.search(&search(Some("acme"), None, 1));
        assert_eq!((page.invoices.len(), page.matched), (1, 3));
        assert_eq!(page.invoices[0].id, "INV-1001");
    }

    #[test]
    fn a_new_invoice_is_open_and_has_the_next_number() {
        let mut ledger = Ledger::with_history();
        let invoice = ledger.create(draft()).unwrap().clone();
        assert_eq!((invoice.id.as_str(), invoice.total, invoice.status), ("INV-1005", 2_100, Status::Open));
        assert_eq!(ledger.get("INV-1005"), Ok(&invoice));
    }

    #[test]
    fn a_draft_that_makes_no_sense_is_refused() {
        let mut ledger = Ledger::new();
        let huge = Line { item: "sun".to_owned(), quantity: 2, price: u64::MAX };
        for nonsense in [
            Draft { customer: String::new(), ..draft() },
            Draft { lines: Vec::new(), ..draft() },
            Draft { due: Some("tomorrow".to_owned()), ..draft() },
            Draft { lines: vec![huge], ..draft() },
        ] {
            assert!(matches!(ledger.create(nonsense), Err(Objection::Invalid(_))));
        }
        assert_eq!(ledger.search(&search(None, None, 10)).matched, 0);
    }

    #[test]
    fn an_invoice_is_paid_once_and_in_full() {
        let mut ledger = Ledger::with_history();
        let pay = |amount| Payment { amount, method: Method::Card };
        assert!(matches!(ledger.pay("INV-1001", pay(1)), Err(Objection::Refused(_))));
        assert_eq!(ledger.pay("INV-1001", pay(9_000)).unwrap().number, "REC-1");
        assert!(matches!(ledger.pay("INV-1001", pay(9_000)), Err(Objection::Refused(_))));
        assert_eq!(ledger.pay("INV-1002", pay(12_900)).unwrap().number, "REC-2");
    }

    #[test]
    fn a_void_invoice_stays_void() {
        let mut ledger = Ledger::with_history();
        assert_eq!(ledger.void("INV-1001", "a mistake".to_owned()).unwrap().note.as_deref(), Some("a mistake"));
        assert!(matches!(ledger.void("INV-1001", String::new()), Err(Objection::Refused(_))));
    }

    #[test]
    fn only_an_id_as_written_finds_an_invoice() {
        let ledger = Ledger::with_history();
        for id in ["INV-01001", "INV-+1001", "inv-1001", "1001", "", "INV-9999"] {
            assert_eq!(ledger.get(id), Err(Objection::NotFound(id.to_owned())));
        }
    }
}
