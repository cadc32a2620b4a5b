//! HAR 1.2, as browsers save it: only what a sample needs is looked at.

use serde_json::Value;

use super::{InvalidSample, Parts, Place, Sample};

/// The samples of a HAR file. Entries that are no calls of an API are passed over: other methods, answers without a status, bodies of
/// requests and answers that are not JSON.
pub(super) fn samples(text: &str) -> Result<Vec<Sample>, InvalidSample> {
    let wrong = |message: String| InvalidSample { place: Place::Entry(1), message };
    // A browser's file is larger and less careful than what a service may answer, so the limits of values are not for it.
    let har: Value = serde_json::from_str(text).map_err(|error| wrong(format!("the file is not JSON: {error}")))?;
    let Some(entries) = har.pointer("/log/entries").and_then(Value::as_array) else {
        return Err(wrong("the file is JSON but not HAR: there is nothing at `/log/entries`".to_owned()));
    };
    let samples = (1..).zip(entries).filter_map(|(number, entry)| sample(Place::Entry(number), entry));
    Ok(samples.collect())
}

fn sample(place: Place, entry: &Value) -> Option<Sample> {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let url = text("/request/url");
    let (_, rest) = url.split_once("://")?;
    let (_, target) = rest.split_at_checked(rest.find('/')?)?;
    let status = entry.pointer("/response/status").and_then(Value::as_u64)?.to_string();
    let parts = Parts {
        method: text("/request/method"),
        target,
        body: text("/request/postData/text"),
        status: &status,
        answer: text("/response/content/text"),
    };
    Sample::new(place, &parts).ok()
}
