//! A small registry: billing decodes its parameters, archive does not, and both serve `acme:store/files`.

use portcullis_policy::{
    Component, ComponentFacts, Engine, Function, Interface, ParamType, ParamsReadable, PolicyFile, PolicySet,
    Principal, Problem, Schema, Slice,
};

pub(crate) const INVOICES: &str = "acme:billing/invoices@1.0.0";
pub(crate) const FILES: &str = "acme:store/files@0.2.0";
pub(crate) const CHECKOUT: &str = "spiffe://example.org/component/prod/checkout";

pub(crate) fn function(name: &str, params: &[(&str, ParamType)]) -> Function {
    Function { name: name.to_owned(), params: params.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect() }
}

pub(crate) fn invoices() -> Interface {
    Interface {
        name: INVOICES.to_owned(),
        functions: vec![
            function("get-invoice", &[("customer-id", ParamType::String), ("number", ParamType::Long)]),
            function("list-invoices", &[("customer-id", ParamType::String), ("limit", ParamType::OptionalLong)]),
            function(
                "pay",
                &[("amount", ParamType::Long), ("urgent", ParamType::Bool), ("blob", ParamType::Unreadable)],
            ),
        ],
    }
}

pub(crate) fn files() -> Interface {
    Interface {
        name: FILES.to_owned(),
        functions: vec![function("read", &[("path", ParamType::String)]), function("drop-all", &[])],
    }
}

pub(crate) fn registry() -> Vec<Component> {
    let component = |lattice: &str, id: &str, interfaces, params| Component {
        lattice: lattice.to_owned(),
        id: id.to_owned(),
        interfaces,
        params,
    };
    vec![
        component("prod", "billing", vec![invoices(), files()], ParamsReadable::Decoded),
        component("prod", "archive", vec![files()], ParamsReadable::Opaque),
        component("dev", "billing", vec![invoices()], ParamsReadable::Decoded),
    ]
}

pub(crate) fn schema() -> Schema {
    Schema::new(&registry()).unwrap()
}

pub(crate) fn file(name: &str, text: &str) -> PolicyFile {
    PolicyFile { name: name.to_owned(), text: text.to_owned() }
}

pub(crate) fn problems(text: &str) -> Vec<Problem> {
    PolicySet::parse(&[file("a.cedar", text)], &schema()).expect_err("the file has a mistake")
}

pub(crate) fn policies(text: &str) -> PolicySet {
    match PolicySet::parse(&[file("a.cedar", text)], &schema()) {
        Ok(policies) => policies,
        Err(problems) => panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

pub(crate) fn facts(grants: &[&str]) -> ComponentFacts {
    ComponentFacts {
        lattice: "prod".to_owned(),
        id: "billing".to_owned(),
        interfaces: vec![invoices(), files()],
        grants: grants.iter().map(|id| (*id).to_owned()).collect(),
    }
}

/// The engine of `prod/billing`, by way of the wire.
pub(crate) fn engine(text: &str, grants: &[&str]) -> Engine {
    let slice = Slice::parse(policies(text).for_component("prod", "billing").policies()).unwrap();
    Engine::new(&slice, &facts(grants), 7).unwrap()
}

pub(crate) fn checkout() -> Principal {
    Principal::workload(CHECKOUT, "example.org", "/component/prod/checkout")
}
