//! The decision alone: cached, uncached, and with parameters; in a slice cut from few or many registered policies.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use portcullis_policy::{
    ActionIndex, CallContext, Component, ComponentFacts, Engine, Function, Interface, ParamType, ParamValue,
    ParamsReadable, PeerView, PolicyFile, PolicySet, Principal, Schema, Transport,
};

use crate::options::Options;
use crate::outcome::percentile;
use crate::report::{Report, Row};

const INVOICES: &str = "acme:billing/invoices@1.0.0";
const CHECKOUT: &str = "spiffe://example.org/component/prod/checkout";
/// Policies that apply to every call of the component.
const IN_SLICE: usize = 10;
/// SPIFFE IDs granted on the component.
const GRANTS: usize = 1000;
/// Policies of one other component.
const OF_ANOTHER: usize = 10;
/// Cached decisions in one measurement: one alone is shorter than the clock is fine.
const BATCH: usize = 256;

/// One set of policies and how long its decisions took, in microseconds.
struct Case {
    name: String,
    engine: Engine,
    cached: Vec<f64>,
    uncached: Vec<f64>,
    with_params: Vec<f64>,
}

pub fn measure(options: &Options, report: &mut Report) {
    let registered = if options.quick { [10, 20, 100] } else { [10, 1000, 10_000] };
    let mut cases = vec![Case::new("grants as data".to_owned(), &by_grants(), IN_SLICE)];
    for count in registered {
        cases.push(Case::new(format!("{IN_SLICE} of {count} policies"), &ten_policies(), count));
    }
    for _ in 0..if options.quick { 2 } else { 40 } {
        for case in &mut cases {
            case.round();
        }
    }
    for case in cases {
        for (kind, mut took) in
            [("cached", case.cached), ("uncached", case.uncached), ("with parameters", case.with_params)]
        {
            let (p50_us, p99_us) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
            report.rows.push(Row {
                name: format!("e decision {kind}, {}", case.name),
                concurrency: 1,
                p50_us,
                p99_us,
                per_s: 1e6 / p50_us,
                mb_per_s: None,
                cpu_us: None,
            });
        }
    }
}

impl Case {
    fn new(name: String, slice: &str, registered: usize) -> Self {
        let others = (registered - IN_SLICE).div_ceil(OF_ANOTHER);
        let mut components = vec![component("billing".to_owned())];
        components.extend((0..others).map(|number| component(format!("other-{number}"))));
        let schema = Schema::new(&components).unwrap();
        let mut text = slice.to_owned();
        for number in 0..registered - IN_SLICE {
            writeln!(
                text,
                "@id(\"other-{number}\") permit (principal == Workload::\"spiffe://example.org/component/prod/{number}\", action in Action::\"acme:billing/invoices\", resource == VirtualComponent::\"prod/other-{}\") when {{ context.transport == \"quic\" }};",
                number / OF_ANOTHER
            )
            .unwrap();
        }
        let file = PolicyFile { name: "all.cedar".to_owned(), text };
        let set = PolicySet::parse(&[file], &schema).expect("the policies are right");
        let facts = ComponentFacts {
            lattice: "prod".to_owned(),
            id: "billing".to_owned(),
            interfaces: vec![interface()],
            grants: (1..GRANTS)
                .map(|number| format!("spiffe://example.org/component/prod/granted-{number}"))
                .chain([CHECKOUT.to_owned()])
                .collect(),
        };
        Self {
            name,
            engine: Engine::new(&set.for_component("prod", "billing"), &facts, 1).unwrap(),
            cached: Vec::new(),
            uncached: Vec::new(),
            with_params: Vec::new(),
        }
    }

    fn round(&mut self) {
        let (get, pay) = (self.action("get"), self.action("pay"));
        let quic = CallContext::over(Transport::Quic);
        let params = [("amount", ParamValue::Unsigned(5))];
        let with_params = CallContext { params: Some(&params), ..quic };
        // A connection's first call of a function is the one that is not cached.
        let fresh: Vec<_> = (0..64).map(|_| self.view()).collect();
        for view in &fresh {
            self.uncached.push(timed(1, || decide(view, get, &quic)));
        }
        let view = &fresh[0];
        for _ in 0..64 {
            self.cached.push(timed(BATCH, || decide(view, get, &quic)));
            self.with_params.push(timed(1, || decide(view, pay, &with_params)));
        }
    }

    fn view(&self) -> PeerView {
        self.engine.view(&Principal::workload(CHECKOUT, "example.org", "/component/prod/checkout"))
    }

    fn action(&self, function: &str) -> ActionIndex {
        self.engine.action(INVOICES, function).unwrap()
    }
}

fn decide(view: &PeerView, action: ActionIndex, call: &CallContext<'_>) {
    let permit = view.decide(black_box(action), black_box(call)).permit();
    drop(black_box(permit.expect("the call is allowed")));
}

/// Microseconds for one of `count` times.
fn timed(count: usize, mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..count {
        work();
    }
    began.elapsed().as_nanos() as f64 / 1e3 / count as f64
}

/// Who is granted may call, unless suspended; nothing else. With them in the set, policies that cannot apply here.
fn by_grants() -> String {
    let mut text = String::from(
        "@id(\"granted\") permit (principal is Workload, action in Action::\"acme:billing/invoices\", resource) when { resource.grants.contains(principal) };\n\
         @id(\"limit\") forbid (principal, action == Action::\"acme:billing/invoices@1.0.0#pay\", resource) when { context.params.amount > 1000 };\n",
    );
    text.push_str("@id(\"suspended\") forbid (principal in TrustDomain::\"suspended.example\", action, resource);\n");
    text
}

/// The same, and more that have to be evaluated for every call: ten in all for `get`, and one more that reads a parameter of `pay`.
fn ten_policies() -> String {
    let mut text = by_grants();
    for number in 3..=IN_SLICE {
        writeln!(
            text,
            "@id(\"team-{number}\") permit (principal is Workload, action in Action::\"any\", resource in Lattice::\"prod\") when {{ principal.path like \"/component/team-{number}/*\" && context.transport == \"quic\" }};"
        )
        .unwrap();
    }
    text
}

fn component(id: String) -> Component {
    Component { lattice: "prod".to_owned(), id, interfaces: vec![interface()], params: ParamsReadable::Decoded }
}

fn interface() -> Interface {
    let function = |name: &str, params: &[(&str, ParamType)]| Function {
        name: name.to_owned(),
        params: params.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
    };
    Interface {
        name: INVOICES.to_owned(),
        functions: vec![function("get", &[("id", ParamType::String)]), function("pay", &[("amount", ParamType::Long)])],
    }
}
