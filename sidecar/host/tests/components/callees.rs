//! Stand-ins for virtual components: they know the WIT, decode what comes and encode what goes.

use std::time::Duration;

use bytes::Bytes;
use portcullis_client::explanation::{DecidingPolicy, Explanation};
use portcullis_host::{Call, CallFailure, Callee, Refused};
use portcullis_transport::Refusal;
use portcullis_value::{
    FunctionType, Limits, Type, Value, Wit, WitSource, decode_params, encode_result,
    json::{JsonRules, result_from_json},
};
use serde_json::json;

pub(crate) fn billing_wit() -> Wit {
    parsed(include_str!("../../../../examples/invoices/wit/invoices.wit"))
}

fn parsed(text: &str) -> Wit {
    Wit::parse(&[WitSource { path: "main.wit".to_owned(), text: text.to_owned() }]).unwrap()
}

fn function(wit: &Wit, callee: Callee<'_>) -> FunctionType {
    wit.function(callee.instance, callee.function).unwrap().typed().unwrap().clone()
}

fn params(ty: &FunctionType, bytes: &[u8]) -> Vec<Value> {
    decode_params(ty, bytes, &Limits::default()).unwrap()
}

fn answer(ty: &FunctionType, value: Option<&Value>) -> Result<Bytes, CallFailure> {
    let mut bytes = Vec::new();
    encode_result(ty, value, &mut bytes).unwrap();
    Ok(bytes.into())
}

/// Gives back what it gets.
pub(crate) struct Echo;

impl Call for Echo {
    async fn call(&self, callee: Callee<'_>, bytes: Bytes, _: Duration) -> Result<Bytes, CallFailure> {
        let ty = match (callee.instance, callee.function) {
            ("acme:mirror/wire@0.2.1", "send") => {
                FunctionType { params: vec![("a".to_owned(), Type::U32)], result: Some(Type::U32) }
            }
            ("acme:mirror/wire@0.2.1", "ping") => FunctionType { params: Vec::new(), result: None },
            _ => function(&mirror_wit(), callee),
        };
        let mut values = params(&ty, &bytes);
        let result = match ty.result {
            None => None,
            Some(Type::Tuple(_)) => Some(Value::Tuple(values)),
            Some(_) if callee.function == "attempt" => Some(Value::Result(Ok(values.pop().map(Box::new)))),
            Some(_) => values.pop(),
        };
        answer(&ty, result.as_ref())
    }
}

/// The contract that the mirror imports, without what comes of `wrpc:rpc`.
fn mirror_wit() -> Wit {
    let text = include_str!("../../../../examples/guests/mirror/wit/mirror.wit");
    let (head, rest) = text.split_once("/// Functions whose caller").unwrap();
    let (_, tail) = rest.split_once("/// What a component must not").unwrap();
    let tail = tail.replace("import wire;", "").replace("export sender;", "");
    parsed(&format!("{head}///{tail}"))
}

/// A billing service with two open invoices of `acme`.
pub(crate) struct Billing;

impl Call for Billing {
    async fn call(&self, callee: Callee<'_>, bytes: Bytes, _: Duration) -> Result<Bytes, CallFailure> {
        let ty = function(&billing_wit(), callee);
        let values = params(&ty, &bytes);
        let text = |value: &str| Value::String(value.to_owned());
        let invoice = |id: &str, total: u64| json!({ "id": id, "customer": "acme", "status": "open", "lines": [], "total": total, "due": "2026-12-31" });
        let result = match (callee.function, values.as_slice()) {
            ("search", [customer, status, limit]) => {
                assert_eq!((status, limit), (&Value::some(Value::Enum(0)), &Value::U32(100)));
                let invoices = if *customer == Value::some(text("acme")) {
                    vec![invoice("INV-1001", 9_000), invoice("INV-1002", 12_900)]
                } else {
                    Vec::new()
                };
                json!({ "ok": { "matched": invoices.len(), "invoices": invoices } })
            }
            ("get", [id]) if *id == text("INV-1001") => json!({ "ok": invoice("INV-1001", 9_000) }),
            ("get", [_]) => json!({ "err": { "tag": "not-found", "val": "there is no invoice `INV-9`" } }),
            ("pay", [id, payment]) => {
                assert_eq!((id, payment), (&text("INV-1001"), &Value::Record(vec![Value::U64(9_000), Value::Enum(0)])));
                json!({ "ok": { "number": "REC-7", "invoice": "INV-1001", "amount": 9_000 } })
            }
            (name, _) => panic!("{name} was not expected"),
        };
        let result = result_from_json(&ty, &result, &JsonRules::default(), &Limits::default()).unwrap();
        answer(&ty, result.as_ref())
    }
}

/// A sidecar that denies everything and says why.
pub(crate) struct Refusing;

impl Call for Refusing {
    async fn call(&self, callee: Callee<'_>, _: Bytes, _: Duration) -> Result<Bytes, CallFailure> {
        let policy = DecidingPolicy { id: "never-cancel".to_owned(), advice: Some("ask an adult".to_owned()) };
        let explanation = Explanation {
            refusal: Refusal::Denied.name().to_owned(),
            reason: "a policy forbids it".to_owned(),
            policies: vec![policy],
        };
        let Callee { target, instance, function } = callee;
        Err(CallFailure {
            message: format!("{target} refused `{instance}#{function}`: ask an adult"),
            refused: Some(Refused { refusal: Refusal::Denied, explanation: Some(explanation) }),
        })
    }
}

/// A callee whose answers are no values of the right type.
pub(crate) struct Broken;

impl Call for Broken {
    async fn call(&self, _: Callee<'_>, _: Bytes, _: Duration) -> Result<Bytes, CallFailure> {
        Ok(Bytes::from_static(&[0xff; 3]))
    }
}
