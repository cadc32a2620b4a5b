//! Real components on the host, called with JSON, their imports served by callees that decode and encode like any sidecar does.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod callees;

use std::{sync::Arc, time::Duration};

use callees::{Billing, Broken, Echo, Refusing};
use portcullis_host::{Binding, Call, Guest, HostLimits, Program, Trap, engine};
use portcullis_value::{
    Limits,
    json::{JsonRules, params_from_json, result_to_json},
};
use serde_json::{Value as Json, json};

const CHECKOUT: &[u8] = include_bytes!("../../../../examples/guests/checkout/checkout.wasm");
const MIRROR: &[u8] = include_bytes!("../../../../examples/guests/mirror/mirror.wasm");

/// A component and the program made of it.
struct Linked {
    guest: Guest,
    program: Program,
}

impl Linked {
    fn new(component: &[u8], calls: impl Call, limits: HostLimits) -> Self {
        let guest = Guest::load(&engine().unwrap(), component).unwrap();
        let binding = |name: &portcullis_host::Import| Binding {
            target: "demo/callee".parse().unwrap(),
            instance: name.name.to_string(),
        };
        let bindings: Vec<Binding> = guest.imports().iter().map(binding).collect();
        let program = Program::link(&guest, &bindings, &Arc::new(calls), limits).unwrap();
        Self { guest, program }
    }

    async fn call(&self, function: &str, arguments: &Json) -> Result<Json, Trap> {
        let entrance = self.guest.entrance(Some(function)).unwrap();
        let rules = JsonRules::default();
        let arguments = params_from_json(entrance.ty, arguments, &rules, &Limits::default()).unwrap();
        let result = self.program.call(entrance, arguments).await?;
        let mut text = Vec::new();
        result_to_json(entrance.ty, result.as_ref(), &rules, &mut text).unwrap();
        Ok(serde_json::from_slice(&text).unwrap())
    }
}

#[tokio::test]
async fn a_component_calls_its_imports_and_computes_with_the_answer() {
    let checkout = Linked::new(CHECKOUT, Billing, HostLimits::default());
    assert_eq!(checkout.call("total", &json!(["acme"])).await.unwrap(), json!({ "ok": 21_900 }));
    assert_eq!(
        checkout.call("acme:checkout/orders@1.0.0#total", &json!(["globex"])).await.unwrap(),
        json!({ "ok": 0 })
    );
    assert_eq!(checkout.call("pay", &json!({ "invoice-id": "INV-1001" })).await.unwrap(), json!({ "ok": "REC-7" }));
    let answer = checkout.call("pay", &json!(["INV-9"])).await.unwrap();
    assert_eq!(answer, json!({ "err": "there is no invoice `INV-9`" }));
}

/// Sends each of the values through the component and expects it back.
async fn mirrored(function: &str, values: impl IntoIterator<Item = Json>) {
    let mirror = Linked::new(MIRROR, Echo, HostLimits::default());
    for value in values {
        let result = mirror.call(function, &json!([value])).await.unwrap();
        assert_eq!(result, value, "{function}");
    }
}

#[tokio::test]
async fn integers_and_other_scalars_pass_through_a_component_and_back() {
    let mirror = Linked::new(MIRROR, Echo, HostLimits::default());
    for (function, arguments) in [
        ("integers", json!([255, 65_535, u32::MAX, u64::MAX, i8::MIN, i16::MIN, i32::MIN, i64::MIN])),
        ("integers", json!([0, 0, 0, 0, i8::MAX, i16::MAX, i32::MAX, i64::MAX])),
        ("scalars", json!([true, 0.5, -1e300, "ß"])),
        ("scalars", json!([false, "NaN", "-Infinity", "🚪"])),
    ] {
        assert_eq!(mirror.call(function, &arguments).await.unwrap(), arguments, "{function}");
    }
    assert_eq!(mirror.call("nothing", &json!([])).await.unwrap(), json!(null));
}

#[tokio::test]
async fn strings_and_lists_pass_through_a_component_and_back() {
    mirrored("text", [json!("gräfin 🏰"), json!("")]).await;
    mirrored("bytes", [json!("AP8B"), json!("")]).await;
    mirrored("numbers", [json!([0, 1, u64::MAX]), json!([])]).await;
    mirrored("nested", [json!([["a", [[true], []]], ["b", []]]), json!([])]).await;
}

#[tokio::test]
async fn records_and_variants_pass_through_a_component_and_back() {
    let points = json!([{ "x": 1, "y": 2.0 }, { "x": 3, "y": 4.0, "label": "end" }]);
    mirrored("place", [json!({ "x": -7, "y": 2.5, "label": "here" }), json!({ "x": 7, "y": 0.5 })]).await;
    mirrored("draw", [json!({ "tag": "dot" }), json!({ "tag": "circle", "val": 1.5 })]).await;
    mirrored("draw", [json!({ "tag": "polygon", "val": points })]).await;
    mirrored("draw", ["ok", "err"].map(|arm| json!({ "tag": "nested", "val": { arm: "x" } }))).await;
    mirrored("draw", [json!({ "tag": "nested", "val": { "ok": null } })]).await;
    mirrored("paint", [json!("red"), json!("blue")]).await;
    mirrored("allow", [json!(["write", "seal"]), json!([])]).await;
}

#[tokio::test]
async fn options_and_results_pass_through_a_component_and_back() {
    mirrored("maybe", [json!(null), json!({ "val": null }), json!({ "val": 7 })]).await;
    mirrored("outcome", [json!({ "ok": 1 }), json!({ "err": "why" })]).await;
    mirrored("empty", [json!({ "ok": null }), json!({ "err": null })]).await;
    let mirror = Linked::new(MIRROR, Echo, HostLimits::default());
    for (function, arguments, result) in [
        ("attempt", json!([3]), json!({ "ok": 3 })),
        ("send", json!([4]), json!({ "ok": 4 })),
        ("ping", json!([]), json!({ "ok": null })),
    ] {
        assert_eq!(mirror.call(function, &arguments).await.unwrap(), result, "{function}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_trap_that_keeps_its_reason() {
    let checkout = Linked::new(CHECKOUT, Refusing, HostLimits::default());
    let trap = checkout.call("cancel", &json!(["INV-1001"])).await.unwrap_err();
    let Trap::Call(failure) = &trap else { panic!("{trap}") };
    assert!(failure.is_denied());
    let explanation = failure.refused.as_ref().unwrap().explanation.as_ref().unwrap();
    assert_eq!(explanation.policies[0].id, "never-cancel");
    assert_eq!(trap.to_string(), "demo/callee refused `acme:billing/invoices@1.0.0#cancel`: ask an adult");
}

#[tokio::test]
async fn a_refusal_is_the_err_arm_where_that_is_a_string() {
    let mirror = Linked::new(MIRROR, Refusing, HostLimits::default());
    for function in ["attempt", "outcome"] {
        let arguments = if function == "attempt" { json!([1]) } else { json!([{ "ok": 1 }]) };
        let answer = mirror.call(function, &arguments).await.unwrap();
        let reason = format!("demo/callee refused `acme:mirror/glass@0.2.1#{function}`: ask an adult");
        assert_eq!(answer, json!({ "err": reason }));
    }
    assert!(matches!(mirror.call("text", &json!(["x"])).await, Err(Trap::Call(_))));
}

#[tokio::test]
async fn a_refusal_is_the_err_arm_where_that_is_wrpc_rpc_error() {
    let mirror = Linked::new(MIRROR, Refusing, HostLimits::default());
    for (function, arguments) in [("send", json!([1])), ("ping", json!([]))] {
        let answer = mirror.call(function, &arguments).await.unwrap();
        let reason = format!("demo/callee refused `acme:mirror/wire@0.2.1#{function}`: ask an adult");
        assert_eq!(answer, json!({ "err": reason }));
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_type_is_a_failure_and_no_result() {
    let mirror = Linked::new(MIRROR, Broken, HostLimits::default());
    let trap = mirror.call("text", &json!(["x"])).await.unwrap_err();
    assert!(trap.to_string().starts_with("demo/callee answered nonsense: "), "{trap}");
}

#[tokio::test]
async fn a_component_that_never_returns_is_stopped_at_its_deadline() {
    let call_timeout = Duration::from_millis(50);
    let mirror = Linked::new(MIRROR, Echo, HostLimits { call_timeout, ..HostLimits::default() });
    let trap = mirror.call("spin", &json!([])).await.unwrap_err();
    assert!(matches!(trap, Trap::DeadlineExceeded { after } if after == call_timeout), "{trap}");
    assert_eq!(mirror.call("text", &json!(["still here"])).await.unwrap(), json!("still here"));
}

#[tokio::test]
async fn a_component_that_computes_lets_others_run_on_the_same_thread() {
    let mirror =
        Linked::new(MIRROR, Echo, HostLimits { call_timeout: Duration::from_millis(200), ..HostLimits::default() });
    let (spinning, text) = (json!([]), json!(["meanwhile"]));
    let mut spin = std::pin::pin!(mirror.call("spin", &spinning));
    let other = tokio::select! {
        biased;
        _ = &mut spin => panic!("the other call had to wait"),
        answer = mirror.call("text", &text) => answer,
    };
    assert_eq!(other.unwrap(), json!("meanwhile"));
}

#[tokio::test]
async fn a_component_gets_no_more_memory_than_its_limit() {
    let mirror = Linked::new(MIRROR, Echo, HostLimits { memory_bytes: 8 << 20, ..HostLimits::default() });
    let got = mirror.call("swell", &json!([64 << 20])).await.unwrap().as_u64().unwrap();
    assert!((4 << 20..8 << 20).contains(&got), "{got}");
    assert_eq!(mirror.call("swell", &json!([1 << 20])).await.unwrap(), json!(1 << 20));
}

#[tokio::test]
async fn values_beyond_the_limits_never_leave_or_enter() {
    let values = Limits { bytes: 1000, ..Limits::default() };
    let mirror = Linked::new(MIRROR, Echo, HostLimits { values, ..HostLimits::default() });
    assert!(mirror.call("text", &json!(["x".repeat(900)])).await.is_ok());
    let trap = mirror.call("text", &json!(["x".repeat(2000)])).await.unwrap_err();
    assert_eq!(trap.to_string(), "the parameters are larger than 1000 bytes");
}

#[tokio::test]
async fn a_component_that_traps_harms_nobody_but_itself() {
    let mirror = Linked::new(MIRROR, Echo, HostLimits::default());
    let trap = mirror.call("fall", &json!([])).await.unwrap_err();
    assert!(matches!(&trap, Trap::Guest(reason) if reason.contains("unreachable")), "{trap}");
    assert_eq!(mirror.call("text", &json!(["x"])).await.unwrap(), json!("x"));
}

#[test]
fn a_guest_says_what_it_imports_and_exports() {
    let guest = Guest::load(&engine().unwrap(), CHECKOUT).unwrap();
    let imports: Vec<_> = guest.imports().iter().map(|import| import.name.to_string()).collect();
    assert_eq!(imports, ["acme:billing/invoices@1.0.0"]);
    let functions: Vec<_> = guest.imports()[0].functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(functions, ["get", "search", "pay", "cancel"]);
    let exports: Vec<_> = guest.exports().iter().map(ToString::to_string).collect();
    assert_eq!(exports, ["total", "pay", "cancel"].map(|name| format!("acme:checkout/orders@1.0.0#{name}")));
    assert_eq!(guest.digest().len(), "sha256:".len() + 64);
}

#[test]
fn the_imports_of_the_checkout_are_the_contract_of_the_billing_service() {
    let guest = Guest::load(&engine().unwrap(), CHECKOUT).unwrap();
    let wit = callees::billing_wit();
    for function in &guest.imports()[0].functions {
        let offered = wit.function("acme:billing/invoices@1.0.0", &function.name).unwrap().typed().unwrap();
        assert_eq!(function.ty.difference(offered), None, "{}", function.name);
    }
}

#[test]
fn what_is_no_component_is_refused() {
    let engine = engine().unwrap();
    for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"#!/bin/sh"] {
        let error = Guest::load(&engine, bytes).unwrap_err().to_string();
        assert!(error.starts_with("not a component: "), "{error}");
    }
}

#[test]
fn a_name_that_means_no_function_or_two_is_an_error_that_lists_them() {
    let guest = Guest::load(&engine().unwrap(), MIRROR).unwrap();
    for (name, part) in [
        (Some("lost"), "the component exports no `lost`; it has `acme:mirror/glass@0.2.1#integers`, "),
        (None, "which function? the component exports `acme:mirror/glass@0.2.1#integers`, "),
    ] {
        let error = guest.entrance(name).unwrap_err().to_string();
        assert!(error.starts_with(part), "{error}");
    }
}
