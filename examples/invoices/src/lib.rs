//! A billing service as one might find it after ten years: HTTP/1.1, JSON, paths, query strings and status codes.
//!
//! It stands for the legacy service behind a sidecar. It knows nothing of wasm, WIT, SPIFFE, TLS or policy: who calls is what the
//! `x-caller` header says, and it believes it. Invoices live in memory and are gone when it ends.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/invoices/{id}` | 200 invoice |
//! | `GET /api/v1/invoices?customer=..&status=..&limit=..` | 200 `{"invoices":[..],"matched":n}` |
//! | `POST /api/v1/invoices`, JSON `{"customer","lines","due"}` | 201 invoice |
//! | `POST /api/v1/invoices/{id}/payments`, JSON `{"amount","method"}` | 201 receipt |
//! | `POST /api/v1/invoices/{id}/void`, the reason as text, form or JSON | 200 invoice |
//!
//! What goes wrong is `{"error":{"code":..,"message":..}}` with 400 `invalid`, 404 `not-found`, 405 `not-allowed`, 409 `refused` or 413
//! `too-large`.

pub mod ledger;
mod query;
mod ready;
mod routes;
mod server;

pub use ready::write as write_ready_file;
pub use server::serve;
