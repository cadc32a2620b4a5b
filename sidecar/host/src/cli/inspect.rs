use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use portcullis_value::FunctionKind;
use serde_json::{Value as Json, json};

use super::{Form, broken, exit, say};
use crate::{Guest, engine};

/// Says what a component imports and exports, and the digest that an entry binds it to.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis-host inspect checkout.wasm")]
pub(super) struct Inspect {
    /// The component's file.
    component: PathBuf,
}

impl Inspect {
    pub(super) fn carry_out(self, form: Form) -> ExitCode {
        let path = self.component.display();
        let bytes = match std::fs::read(&self.component) {
            Ok(bytes) => bytes,
            Err(error) => return broken(&format!("cannot read `{path}`: {error}")),
        };
        let guest = match engine() {
            Ok(engine) => Guest::load(&engine, &bytes),
            Err(error) => return broken(&format!("cannot start wasmtime: {error:#}")),
        };
        match guest {
            Ok(guest) => exit(say(&match form {
                Form::Text => text(&guest),
                Form::Json => document(&guest).to_string(),
            })),
            Err(error) => broken(&format!("`{path}`: {error}")),
        }
    }
}

fn text(guest: &Guest) -> String {
    let mut lines = vec![format!("digest {}", guest.digest())];
    for import in guest.imports() {
        let functions = import.functions.iter();
        lines.extend(functions.map(|function| format!("import {}#{}: {}", import.name, function.name, function.ty)));
    }
    lines.extend(guest.exports().iter().map(|export| match &export.kind {
        FunctionKind::Typed(ty) => format!("export {export}: {ty}"),
        FunctionKind::Opaque(why) => format!("export {export} (cannot be called from here: {why})"),
    }));
    lines.join("\n")
}

fn document(guest: &Guest) -> Json {
    let imports: Vec<Json> = guest
        .imports()
        .iter()
        .map(|import| {
            let functions = import.functions.iter();
            let functions: Vec<Json> =
                functions.map(|function| json!({ "name": function.name, "type": function.ty.to_string() })).collect();
            json!({ "interface": import.name.to_string(), "functions": functions })
        })
        .collect();
    let exports: Vec<Json> = guest
        .exports()
        .iter()
        .map(|export| match &export.kind {
            FunctionKind::Typed(ty) => json!({ "name": export.to_string(), "type": ty.to_string() }),
            FunctionKind::Opaque(why) => json!({ "name": export.to_string(), "opaque": why }),
        })
        .collect();
    json!({ "digest": guest.digest(), "imports": imports, "exports": exports })
}
