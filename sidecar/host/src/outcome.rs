//! Calls with JSON in and JSON out, as the program makes them.

use portcullis_client::explanation::Explanation;
use portcullis_value::{
    Limits,
    json::{JsonError, JsonRules, params_from_json, parse_json, result_to_json},
};
use serde_json::{Value as Json, json};

use crate::{CallFailure, Guest, Program, Refused, Trap, UnknownExport};

/// A call as a line of text: an array of arguments, an object of arguments by name, or `{"call":..,"args":..}` with a function of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The function; without it the one that is called by default.
    pub function: Option<String>,
    /// An array by position or an object by name.
    pub arguments: Json,
}

/// How a call ended.
#[derive(Debug)]
pub enum Outcome {
    /// The result as JSON text; `null` for a function without one.
    Answered(String),
    /// The component was stopped, or stopped itself.
    Trapped(Trap),
    /// There was nothing to call.
    Unusable(String),
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is no JSON within the limits, or `call` is no string.
    pub fn parse(line: &[u8], limits: &Limits) -> Result<Self, JsonError> {
        let json = parse_json(line, limits)?;
        let Json::Object(mut members) = json else {
            return Ok(Self { function: None, arguments: json });
        };
        let Some(Json::String(function)) = members.get("call").cloned() else {
            return Ok(Self { function: None, arguments: Json::Object(members) });
        };
        let named = members.keys().all(|key| key == "call" || key == "args");
        if !named {
            return Ok(Self { function: None, arguments: Json::Object(members) });
        }
        let arguments = members.remove("args").unwrap_or_else(|| json!([]));
        Ok(Self { function: Some(function), arguments })
    }
}

impl Outcome {
    /// Makes the call.
    pub async fn of(guest: &Guest, program: &Program, function: Option<&str>, arguments: &Json) -> Self {
        let entrance = match guest.entrance(function) {
            Ok(entrance) => entrance,
            Err(error) => return Self::unusable(&error),
        };
        let rules = JsonRules::default();
        let arguments = match params_from_json(entrance.ty, arguments, &rules, &program.limits().values) {
            Ok(arguments) => arguments,
            Err(error) => return Self::Unusable(format!("the arguments do not fit: {error}")),
        };
        let result = match program.call(entrance, arguments).await {
            Ok(result) => result,
            Err(trap) => return Self::Trapped(trap),
        };
        let mut text = Vec::new();
        match result_to_json(entrance.ty, result.as_ref(), &rules, &mut text) {
            Ok(()) => Self::Answered(String::from_utf8_lossy(&text).into_owned()),
            Err(error) => Self::Trapped(Trap::Values(error.to_string())),
        }
    }

    fn unusable(error: &UnknownExport) -> Self {
        Self::Unusable(error.to_string())
    }

    /// Whether the call was stopped because policy said no.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Trapped(Trap::Call(failure)) => failure.is_denied(),
            Self::Trapped(Trap::DeadlineExceeded { .. } | Trap::Guest(_) | Trap::Values(_))
            | Self::Answered(_)
            | Self::Unusable(_) => false,
        }
    }

    /// One line of JSON: `{"ok":..}`, `{"trap":..}` with `refusal` where a callee refused, or `{"error":..}`.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            // The result is JSON as it stands; parsing it again could change its numbers.
            Self::Answered(result) => format!("{{\"ok\":{result}}}"),
            Self::Trapped(trap) => {
                let refusal = refusal(trap);
                let mut line = json!({ "trap": trap.to_string() });
                if let (Json::Object(members), Some(refusal)) = (&mut line, refusal) {
                    members.insert("refusal".to_owned(), refusal);
                }
                line.to_string()
            }
            Self::Unusable(error) => json!({ "error": error }).to_string(),
        }
    }
}

fn refusal(trap: &Trap) -> Option<Json> {
    let Trap::Call(CallFailure { message: _, refused: Some(refused) }) = trap else {
        return None;
    };
    let Refused { refusal, explanation } = refused;
    let Explanation { refusal: _, reason, policies } = explanation.clone().unwrap_or_default();
    let policies: Vec<Json> =
        policies.into_iter().map(|policy| json!({ "id": policy.id, "advice": policy.advice })).collect();
    Some(json!({ "code": refusal.name(), "reason": reason, "policies": policies }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_client::explanation::DecidingPolicy;
    use portcullis_transport::Refusal;

    #[test]
    fn a_line_is_arguments_or_a_call_with_arguments() {
        for (line, function, arguments) in [
            (r#"["acme"]"#, None, json!(["acme"])),
            (r#"{"customer":"acme"}"#, None, json!({ "customer": "acme" })),
            (r#"{"call":"pay","args":["INV-1"]}"#, Some("pay"), json!(["INV-1"])),
            (r#"{"call":"ping"}"#, Some("ping"), json!([])),
            (r#"{"call":"a","note":"b"}"#, None, json!({ "call": "a", "note": "b" })),
            (r#"{"call":7}"#, None, json!({ "call": 7 })),
        ] {
            let request = Request::parse(line.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(request, Request { function: function.map(str::to_owned), arguments }, "{line}");
        }
        assert!(Request::parse(b"[", &Limits::default()).is_err());
    }

    #[test]
    fn an_outcome_is_one_line_and_a_refusal_is_told_in_full() {
        assert_eq!(
            Outcome::Answered("{\"ok\":18446744073709551615}".to_owned()).to_line(),
            r#"{"ok":{"ok":18446744073709551615}}"#
        );
        let explanation = Explanation {
            refusal: "denied".to_owned(),
            reason: "no policy permits it".to_owned(),
            policies: vec![DecidingPolicy { id: "p".to_owned(), advice: None }],
        };
        let failure = CallFailure {
            message: "refused\nby two lines".to_owned(),
            refused: Some(Refused { refusal: Refusal::Denied, explanation: Some(explanation) }),
        };
        let outcome = Outcome::Trapped(Trap::Call(failure));
        assert!(outcome.is_denied());
        let line = outcome.to_line();
        assert!(!line.contains('\n'));
        let told: Json = serde_json::from_str(&line).unwrap();
        let refusal =
            json!({ "code": "denied", "reason": "no policy permits it", "policies": [{ "id": "p", "advice": null }] });
        assert_eq!(told, json!({ "trap": "refused\nby two lines", "refusal": refusal }));
        let trap = Outcome::Trapped(Trap::Guest("fell".to_owned()));
        assert!(!trap.is_denied());
        assert_eq!(trap.to_line(), r#"{"trap":"the component failed: fell"}"#);
    }
}
