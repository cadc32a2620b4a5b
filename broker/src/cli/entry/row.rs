//! An entry as it is printed.

use std::time::Duration;

use portcullis_api::v1;
use serde::Serialize;

use crate::cli::screen::{cell, time};

/// An entry in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) node: String,
    pub(super) spiffe_id: String,
    digest: Option<String>,
    danger_any_digest: bool,
    pub(super) ttl_seconds: u32,
    jwt_ttl_seconds: u32,
    pub(super) lattice: Option<String>,
    pub(super) selectors: Vec<String>,
    hint: Option<String>,
    dns_names: Vec<String>,
    federates_with: Vec<String>,
    admin: bool,
    created_at: u64,
    template: Option<String>,
}

impl Row {
    /// Which component file may have it.
    pub(super) fn file(&self) -> &str {
        if self.danger_any_digest { "danger: any" } else { self.digest.as_deref().unwrap_or("-") }
    }

    /// Everything about it, named.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("entry", self.id.clone()),
            ("node", self.node.clone()),
            ("spiffe id", self.spiffe_id.clone()),
            ("lattice", cell(self.lattice.as_deref().unwrap_or_default())),
            ("digest", self.file().to_owned()),
            ("x509 ttl", duration(self.ttl_seconds)),
            ("jwt ttl", duration(self.jwt_ttl_seconds)),
            ("hint", cell(self.hint.as_deref().unwrap_or_default())),
            ("admin", if self.admin { "yes" } else { "no" }.to_owned()),
            ("created", time(self.created_at)),
        ];
        lines.extend(self.template.iter().map(|template| ("made by", format!("template {template}"))));
        lines.extend(self.selectors.iter().map(|selector| ("selector", selector.clone())));
        lines.extend(self.dns_names.iter().map(|name| ("dns name", name.clone())));
        lines.extend(self.federates_with.iter().map(|domain| ("federates with", domain.clone())));
        lines
    }
}

impl From<v1::Entry> for Row {
    fn from(entry: v1::Entry) -> Self {
        let v1::Entry {
            id,
            spiffe_id,
            node,
            component_digest,
            danger_any_digest,
            x509_ttl_seconds,
            lattice,
            selectors,
            jwt_ttl_seconds,
            hint,
            dns_names,
            federates_with,
            admin,
            created_at,
            template,
        } = entry;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id,
            node,
            spiffe_id,
            digest: some(component_digest),
            danger_any_digest,
            ttl_seconds: x509_ttl_seconds,
            jwt_ttl_seconds,
            lattice: some(lattice),
            selectors,
            hint: some(hint),
            dns_names,
            federates_with,
            admin,
            created_at,
            template: some(template),
        }
    }
}

/// Seconds as people read them.
pub(super) fn duration(seconds: u32) -> String {
    humantime::format_duration(Duration::from_secs(seconds.into())).to_string()
}
