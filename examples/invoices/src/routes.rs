//! From a request to an answer: paths, query strings, bodies and status codes.

use bytes::Bytes;
use http::{Method, StatusCode, header::CONTENT_TYPE, request::Parts};
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    ledger::{Ledger, Objection, SEARCH_LIMIT, Search, Status},
    query,
};

/// A status and a JSON body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        let body = json!({ "error": { "code": code, "message": message } });
        Self { status, body: body.to_string().into() }
    }

    fn json(status: StatusCode, value: &impl Serialize) -> Self {
        serde_json::to_vec(value).map_or_else(
            |error| Self::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
            |body| Self { status, body: body.into() },
        )
    }
}

impl From<Objection> for Answer {
    fn from(objection: Objection) -> Self {
        let (status, code) = match objection {
            Objection::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
            Objection::Refused(_) => (StatusCode::CONFLICT, "refused"),
            Objection::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
        };
        Self::error(status, code, &objection.to_string())
    }
}

/// Answers a request whose body has been read.
pub(crate) fn answer(ledger: &mut Ledger, request: &Parts, body: &[u8]) -> Answer {
    route(ledger, request, body).unwrap_or_else(|refused| refused)
}

fn route(ledger: &mut Ledger, request: &Parts, body: &[u8]) -> Result<Answer, Answer> {
    let path = segments(request.uri.path())?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let ["api", "v1", "invoices", rest @ ..] = path.as_slice() else {
        return Err(no_such_path());
    };
    match (rest, &request.method) {
        ([], &Method::GET) => {
            let search = search(request.uri.query().unwrap_or_default())?;
            Ok(Answer::json(StatusCode::OK, &ledger.search(&search)))
        }
        ([], &Method::POST) => Ok(Answer::json(StatusCode::CREATED, ledger.create(parsed(body)?)?)),
        ([id], &Method::GET) => Ok(Answer::json(StatusCode::OK, ledger.get(id)?)),
        ([id, "payments"], &Method::POST) => Ok(Answer::json(StatusCode::CREATED, &ledger.pay(id, parsed(body)?)?)),
        ([id, "void"], &Method::POST) => Ok(Answer::json(StatusCode::OK, ledger.void(id, reason(request, body)?)?)),
        ([] | [_] | [_, "payments" | "void"], method) => {
            let message = format!("`{method}` is not allowed here");
            Err(Answer::error(StatusCode::METHOD_NOT_ALLOWED, "not-allowed", &message))
        }
        _ => Err(no_such_path()),
    }
}

fn no_such_path() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path")
}

fn invalid(message: impl Into<String>) -> Answer {
    Objection::Invalid(message.into()).into()
}

fn segments(path: &str) -> Result<Vec<String>, Answer> {
    path.strip_prefix('/')
        .unwrap_or(path)
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned))
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("the path is not UTF-8"))
}

fn search(text: &str) -> Result<Search, Answer> {
    let mut search = Search { customer: None, status: None, limit: SEARCH_LIMIT };
    for (name, value) in query::pairs(text).ok_or_else(|| invalid("the query is not UTF-8"))? {
        match name.as_str() {
            "customer" => search.customer = Some(value),
            "status" => {
                let status = Status::from_name(&value).ok_or_else(|| invalid(format!("`{value}` is no status")))?;
                search.status = Some(status);
            }
            "limit" => search.limit = value.parse().map_err(|_| invalid(format!("`{value}` is no limit")))?,
            _ => return Err(invalid(format!("`{name}` is no search term"))),
        }
    }
    Ok(search)
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Answer> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not what was expected: {error}")))
}

/// Why an invoice is made void. Over ten years clients have come to send it in three ways.
fn reason(request: &Parts, body: &[u8]) -> Result<String, Answer> {
    let media = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = str::from_utf8(body).map_err(|_| invalid("the reason is not UTF-8"))?;
    match media.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            let value: serde_json::Value = parsed(body)?;
            let reason = value.get("reason").unwrap_or(&value).as_str();
            reason.map(str::to_owned).ok_or_else(|| invalid("the body has no `reason`"))
        }
        "application/x-www-form-urlencoded" => {
            let mut pairs = query::pairs(text).ok_or_else(|| invalid("the reason is not UTF-8"))?.into_iter();
            let reason = pairs.find(|(name, _)| name == "reason");
            reason.map(|(_, reason)| reason).ok_or_else(|| invalid("the form has no `reason`"))
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::Value;

    use super::*;

    fn ask(ledger: &mut Ledger, method: &str, path: &str, body: &str) -> (u16, Value) {
        ask_as(ledger, (method, path), "application/json", body)
    }

    fn ask_as(ledger: &mut Ledger, (method, path): (&str, &str), media: &str, body: &str) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media).body(()).unwrap();
        let answer = answer(ledger, &request.into_parts().0, body.as_bytes());
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn an_invoice_is_created_read_paid_and_then_no_longer_void_able() {
        let mut ledger = Ledger::with_history();
        let draft =
            r#"{"customer":"initech","lines":[{"item":"stapler","quantity":1,"price":1999}],"due":"2027-01-31"}"#;
        let invoice = json!({
            "id": "INV-1005", "customer": "initech", "status": "open", "total": 1999, "due": "2027-01-31",
            "lines": [{ "item": "stapler", "quantity": 1, "price": 1999 }],
        });
        assert_eq!(ask(&mut ledger, "POST", "/api/v1/invoices", draft), (201, invoice.clone()));
        assert_eq!(ask(&mut ledger, "GET", "/api/v1/invoices/INV-1005", ""), (200, invoice));
        let payment = r#"{"amount":1999,"method":"transfer"}"#;
        let receipt = json!({ "number": "REC-1", "invoice": "INV-1005", "amount": 1999 });
        assert_eq!(ask(&mut ledger, "POST", "/api/v1/invoices/INV-1005/payments", payment), (201, receipt));
        let (status, body) = ask(&mut ledger, "POST", "/api/v1/invoices/INV-1005/void", r#"{"reason":"late"}"#);
        assert_eq!((status, &body["error"]["code"]), (409, &json!("refused")));
    }

    #[test]
    fn a_search_reads_its_query() {
        let mut ledger = Ledger::with_history();
        let (status, page) = ask(&mut ledger, "GET", "/api/v1/invoices?customer=acme&status=open&limit=1", "");
        assert_eq!((status, &page["matched"], &page["invoices"][0]["id"]), (200, &json!(2), &json!("INV-1001")));
    }

    #[test]
    fn a_reason_comes_as_text_form_or_json() {
        for (media, body) in [
            ("text/plain; charset=utf-8", "too late"),
            ("application/x-www-form-urlencoded", "reason=too+late"),
            ("application/json", r#"{"reason":"too late"}"#),
            ("application/json", r#""too late""#),
        ] {
            let mut ledger = Ledger::with_history();
            let (status, invoice) = ask_as(&mut ledger, ("POST", "/api/v1/invoices/INV-1001/void"), media, body);
            assert_eq!((status, &invoice["status"], &invoice["note"]), (200, &json!("void"), &json!("too late")));
        }
    }

    #[test]
    fn what_goes_wrong_has_a_status_and_a_code() {
        let mut ledger = Ledger::with_history();
        for (method, path, body, status, code) in [
            ("GET", "/api/v1/invoices/INV-1", "", 404, "not-found"),
            ("GET", "/api/v1/invoices/", "", 404, "not-found"),
            ("GET", "/api/v2/invoices", "", 404, "not-found"),
            ("GET", "/api/v1/invoices/INV-1001/lines", "", 404, "not-found"),
            ("GET", "/api/v1/invoices/%ff", "", 400, "invalid"),
            ("GET", "/api/v1/invoices?limit=-1", "", 400, "invalid"),
            ("GET", "/api/v1/invoices?status=lost", "", 400, "invalid"),
            ("GET", "/api/v1/invoices?colour=red", "", 400, "invalid"),
            ("POST", "/api/v1/invoices", "{", 400, "invalid"),
            ("DELETE", "/api/v1/invoices/INV-1001", "", 405, "not-allowed"),
            ("GET", "/api/v1/invoices/INV-1001/void", "", 405, "not-allowed"),
            ("POST", "/api/v1/invoices/INV-1001/void", "{}", 400, "invalid"),
            ("POST", "/api/v1/invoices/INV-1003/void", r#""x""#, 409, "refused"),
        ] {
            let (got, answer) = ask(&mut ledger, method, path, body);
            assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{method} {path}");
        }
    }
}
