//! What a file sets for all its routes, and a route for itself.

use portcullis_value::json::Int64;

use super::document::StyleEntry;
use super::naming::{Naming, Spelling};
use crate::http::answer::UnknownFields;
use crate::http::route::target::Slashes;

/// The settings in force for one route.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) int64: Option<Int64>,
    pub(super) unknown: UnknownFields,
    pub(super) slashes: Slashes,
    pub(super) naming: Naming,
}

impl Style {
    /// The route's own settings, those of the file where it has none, and the defaults.
    pub(super) fn new(file: &StyleEntry, route: &StyleEntry) -> Self {
        let mut renamed = file.rename.clone();
        renamed.extend(route.rename.clone());
        let naming = Naming {
            fields: route.field_names.or(file.field_names).unwrap_or(Spelling::Wit),
            cases: route.case_names.or(file.case_names).unwrap_or(Spelling::Wit),
            renamed,
        };
        Self {
            int64: route.int64.or(file.int64),
            unknown: route.unknown_fields.or(file.unknown_fields).unwrap_or(UnknownFields::Refuse),
            slashes: route.slashes.or(file.slashes).unwrap_or(Slashes::Encode),
            naming,
        }
    }
}
