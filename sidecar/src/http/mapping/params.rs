//! The parameters of one function while its route is compiled: which of them is used where, and that none is forgotten.

use portcullis_value::{FunctionType, Type};

use super::naming::Naming;
use super::problem::{Located, Problems};
use crate::http::route::slot::{Presence, Slot};

/// The parameters and the uses found so far.
#[derive(Debug)]
pub(super) struct Params<'f> {
    ty: &'f FunctionType,
    naming: &'f Naming,
    /// The names of each use: `page.limit` is `["page", "limit"]`.
    uses: Vec<Vec<String>>,
}

impl<'f> Params<'f> {
    pub(super) fn new(ty: &'f FunctionType, naming: &'f Naming) -> Self {
        Self { ty, naming, uses: Vec::new() }
    }

    /// The slot of a parameter as the operator wrote it. From then on it is used.
    pub(super) fn take(&mut self, written: &Located<String>, problems: &mut Problems) -> Option<Slot> {
        match self.resolve(&written.value) {
            Ok(slot) => {
                self.mark(written, problems);
                Some(slot)
            }
            Err(message) => {
                problems.report_with_hint(written.line, message, self.known());
                None
            }
        }
    }

    /// The slots of every parameter that nothing has used yet. From then on they are used.
    pub(super) fn take_rest(&mut self) -> Vec<Slot> {
        let uses = std::mem::take(&mut self.uses);
        let unused = |name: &str| !uses.iter().any(|names| names.first().is_some_and(|first| first == name));
        let rest: Vec<String> =
            self.ty.params.iter().map(|(name, _)| name.clone()).filter(|name| unused(name)).collect();
        self.uses = uses;
        rest.into_iter()
            .filter_map(|name| {
                let slot = self.resolve(&name).ok();
                self.uses.push(vec![name]);
                slot
            })
            .collect()
    }

    /// Whether a parameter exists that nothing has used yet.
    pub(super) fn has_rest(&self) -> bool {
        let used = |name: &str| self.uses.iter().any(|names| names.first().is_some_and(|first| first == name));
        self.ty.params.iter().any(|(name, _)| !used(name))
    }

    /// Reports every parameter, or field of one, that the route neither uses nor ignores.
    pub(super) fn report_unused(&self, line: Option<usize>, problems: &mut Problems) {
        let mut unused = Vec::new();
        for (name, ty) in &self.ty.params {
            self.collect_unused(std::slice::from_ref(name), ty, &mut unused);
        }
        for name in unused {
            let message = format!("parameter `{name}` is not used");
            problems.report_with_hint(line, message, "put it into path, query, headers or body, or list it in ignore");
        }
    }

    fn collect_unused(&self, names: &[String], ty: &Type, unused: &mut Vec<String>) {
        if self.uses.iter().any(|used| used == names) {
            return;
        }
        match record(ty) {
            Some(fields) if self.uses.iter().any(|used| used.starts_with(names)) => {
                for (name, ty) in fields {
                    let inner: Vec<String> = names.iter().chain([name]).cloned().collect();
                    self.collect_unused(&inner, ty, unused);
                }
            }
            Some(_) | None => unused.push(names.join(".")),
        }
    }

    /// The service's name of the parameter that a slot is.
    pub(super) fn service_name(&self, slot: &Slot) -> String {
        self.naming.field(&slot.label)
    }

    /// The WIT names of the fields of a record parameter, in order.
    pub(super) fn field_names(&self, slot: &Slot) -> Vec<String> {
        let ty = self.ty.params.get(slot.param).map(|(_, ty)| ty);
        let fields = ty.and_then(record).unwrap_or_default();
        fields.iter().map(|(name, _)| name.clone()).collect()
    }

    fn mark(&mut self, written: &Located<String>, problems: &mut Problems) {
        let names: Vec<String> = written.value.split('.').map(str::to_owned).collect();
        if let Some(other) = self.uses.iter().find(|used| used.starts_with(&names) || names.starts_with(used)) {
            let message = if *other == names {
                format!("parameter `{}` is used twice", written.value)
            } else {
                format!(
                    "parameters `{}` and `{}` are used, but one is a part of the other",
                    other.join("."),
                    written.value
                )
            };
            problems.report_with_hint(written.line, message, "a parameter fills exactly one place");
        }
        self.uses.push(names);
    }

    /// Finds a parameter or a field of one.
    fn resolve(&self, written: &str) -> Result<Slot, String> {
        let mut names = written.split('.');
        let first = names.next().unwrap_or_default();
        let found = self.ty.params.iter().enumerate().find(|(_, (name, _))| name == first);
        let Some((param, (_, ty))) = found else {
            return Err(format!("the function has no parameter `{first}`"));
        };
        let mut slot =
            Slot { label: written.to_owned(), param, fields: Vec::new(), ty: ty.clone(), presence: presence(ty) };
        for name in names {
            let Some(fields) = record(&slot.ty) else {
                return Err(format!("`{written}` does not exist: what `{name}` should be a field of is no record"));
            };
            let Some((field, (_, ty))) = fields.iter().enumerate().find(|(_, (field, _))| field == name) else {
                return Err(format!("`{written}` does not exist: there is no field `{name}`"));
            };
            let (field, ty) = (field, ty.clone());
            if ty.is_option() {
                slot.presence = Presence::Optional;
            }
            slot.fields.push(field);
            slot.ty = ty;
        }
        slot.ty = self.naming.rename(&slot.ty).map_err(|name| shared_name(&name))?;
        Ok(slot)
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.ty.params.iter().map(|(name, _)| name.as_str()).collect();
        match names.as_slice() {
            [] => "the function has no parameters".to_owned(),
            names => format!("parameters: {}", names.join(", ")),
        }
    }
}

/// The message for two names that become one.
pub(super) fn shared_name(name: &str) -> String {
    format!("two fields or cases of one type would both be called `{name}`")
}

fn presence(ty: &Type) -> Presence {
    if ty.is_option() { Presence::Optional } else { Presence::Always }
}

/// The fields of a record or of an optional record.
fn record(ty: &Type) -> Option<&[(String, Type)]> {
    let ty = if let Type::Option(payload) = ty { payload.as_ref() } else { ty };
    if let Type::Record(record) = ty { Some(&record.fields) } else { None }
}
