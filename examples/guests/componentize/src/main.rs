//! `componentize CORE.wasm COMPONENT.wasm`: wraps a core module that carries its WIT (as `wit-bindgen` leaves it) into a component.
//!
//! It refuses a module with imports beyond its WIT, WASI included, because it is given no adapter to satisfy them with.

use std::{env, fs, process::ExitCode};

use wit_component::ComponentEncoder;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (Some(core), Some(component), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: componentize CORE.wasm COMPONENT.wasm");
        return ExitCode::from(2);
    };
    match componentize(&core, &component) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("componentize: {error}");
            ExitCode::FAILURE
        }
    }
}

fn componentize(core: &str, component: &str) -> Result<(), String> {
    let module = fs::read(core).map_err(|error| format!("cannot read `{core}`: {error}"))?;
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format!("cannot make a component of `{core}`: {error:#}"))?;
    fs::write(component, bytes).map_err(|error| format!("cannot write `{component}`: {error}"))
}
