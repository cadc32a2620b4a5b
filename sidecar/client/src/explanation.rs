//! `portcullis:peers/refusals@0.1.0`: why a call was refused, both halves of it.
//!
//! The contract is `wit/portcullis-peers/refusals.wit`; a test holds the types here against it.

use std::sync::{Arc, LazyLock};

use portcullis_value::{DecodeError, EncodeError, FunctionType, Limits, Record, Type, Value};

/// The wRPC instance.
pub const INSTANCE: &str = "portcullis:peers/refusals@0.1.0";
/// Its one function.
pub const FUNCTION: &str = "explain";

/// What a refusal's explanation may take, whoever sends it.
const LIMITS: Limits = Limits { bytes: 64 << 10, depth: 8, items: 4096 };

/// Why a call was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The refusal's name.
    pub refusal: String,
    /// One sentence for people.
    pub reason: String,
    /// The policies that decided.
    pub policies: Vec<DecidingPolicy>,
}

/// A policy that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidingPolicy {
    /// Its id.
    pub id: String,
    /// What its author advises.
    pub advice: Option<String>,
}

impl std::fmt::Display for Explanation {
    /// The reason, which names the policies and their advice already.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

static EXPLAIN: LazyLock<FunctionType> = LazyLock::new(|| {
    let record = |fields: Vec<(&str, Type)>| {
        let fields = fields.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect();
        Type::Record(Arc::new(Record { fields }))
    };
    let policy = record(vec![("id", Type::String), ("advice", Type::Option(Arc::new(Type::String)))]);
    let explanation =
        record(vec![("refusal", Type::String), ("reason", Type::String), ("policies", Type::List(Arc::new(policy)))]);
    FunctionType { params: vec![("call".to_owned(), Type::U64)], result: Some(Type::Option(Arc::new(explanation))) }
});

/// The parameters of a question about the call on stream `call`, encoded.
///
/// # Errors
/// Never for a real index; the codec's error otherwise.
pub fn encode_question(call: u64) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(10);
    portcullis_value::encode_params(&EXPLAIN, &[Value::U64(call)], &mut out)?;
    Ok(out)
}

/// The stream index asked about.
///
/// # Errors
/// When the bytes are not one u64.
pub fn decode_question(bytes: &[u8]) -> Result<u64, DecodeError> {
    let values = portcullis_value::decode_params(&EXPLAIN, bytes, &LIMITS)?;
    match values.as_slice() {
        [Value::U64(call)] => Ok(*call),
        _ => Err(DecodeError::Incomplete { more: 1 }),
    }
}

/// The answer, encoded.
///
/// # Errors
/// When a text is longer than the encoding can say.
pub fn encode_answer(explanation: Option<&Explanation>) -> Result<Vec<u8>, EncodeError> {
    let policy = |DecidingPolicy { id, advice }: &DecidingPolicy| {
        let advice = advice.clone().map(|advice| Box::new(Value::String(advice)));
        Value::Record(vec![Value::String(id.clone()), Value::Option(advice)])
    };
    let answer = explanation.map(|Explanation { refusal, reason, policies }| {
        Box::new(Value::Record(vec![
            Value::String(refusal.clone()),
            Value::String(reason.clone()),
            Value::List(policies.iter().map(policy).collect()),
        ]))
    });
    let mut out = Vec::new();
    portcullis_value::encode_result(&EXPLAIN, Some(&Value::Option(answer)), &mut out)?;
    Ok(out)
}

/// The answer of a peer.
///
/// # Errors
/// When the bytes are not an answer, or a large one.
pub fn decode_answer(bytes: &[u8]) -> Result<Option<Explanation>, DecodeError> {
    let Some(Value::Option(Some(answer))) = portcullis_value::decode_result(&EXPLAIN, bytes, &LIMITS)? else {
        return Ok(None);
    };
    let Value::Record(fields) = *answer else {
        return Ok(None);
    };
    let Ok([Value::String(refusal), Value::String(reason), Value::List(policies)]) = <[Value; 3]>::try_from(fields)
    else {
        return Ok(None);
    };
    let policies = policies.into_iter().filter_map(deciding_policy).collect();
    Ok(Some(Explanation { refusal, reason, policies }))
}

fn deciding_policy(value: Value) -> Option<DecidingPolicy> {
    let Value::Record(fields) = value else { return None };
    let Ok([Value::String(id), Value::Option(advice)]) = <[Value; 2]>::try_from(fields) else {
        return None;
    };
    let advice = advice.and_then(|advice| if let Value::String(advice) = *advice { Some(advice) } else { None });
    Some(DecidingPolicy { id, advice })
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_value::{FunctionKind, Wit, WitSource};

    #[test]
    fn the_types_here_are_those_of_the_contract() {
        let text = include_str!("../../../wit/portcullis-peers/refusals.wit").to_owned();
        let wit = Wit::parse(&[WitSource { path: "refusals.wit".to_owned(), text }]).unwrap();
        let function = wit.function(INSTANCE, FUNCTION).unwrap();
        let FunctionKind::Typed(ty) = &function.kind else { panic!("not a function of values") };
        assert_eq!(ty.difference(&EXPLAIN), None);
    }

    #[test]
    fn an_explanation_survives_the_wire() {
        let policies = vec![
            DecidingPolicy { id: "no-cancel".to_owned(), advice: Some("ask billing".to_owned()) },
            DecidingPolicy { id: "other".to_owned(), advice: None },
        ];
        let explanation = Explanation { refusal: "denied".to_owned(), reason: "no".to_owned(), policies };
        let bytes = encode_answer(Some(&explanation)).unwrap();
        assert_eq!(decode_answer(&bytes).unwrap(), Some(explanation));
        assert_eq!(decode_answer(&encode_answer(None).unwrap()).unwrap(), None);
        assert_eq!(decode_question(&encode_question(7).unwrap()).unwrap(), 7);
        assert!(decode_question(&[]).is_err());
    }
}
