//! The value codec alone: how long a small call takes, and how fast large values go.

use std::hint::black_box;
use std::time::Instant;

use portcullis_value::json::{JsonRules, params_from_json_text, params_to_json};
use portcullis_value::{
    FunctionType, Limits, Value, Wit, WitSource, decode_params, decode_result, encode_params, encode_result,
};

use crate::options::Options;
use crate::outcome::percentile;
use crate::report::{Report, Row};

const WIT: &str = "package test:codec;
interface values {
    record money { cents: s64, currency: string }
    get: func(id: u64) -> result<money, string>;
    records: func(values: list<money>);
    numbers: func(values: list<u32>);
    bytes: func(values: list<u8>);
}
world all { export values; }
";
/// A large value's encoding has about this many bytes.
const LARGE: usize = 1 << 20;

/// One piece of work; `bytes` of input or output where the rate matters.
struct Work<'a> {
    name: String,
    bytes: Option<usize>,
    run: Box<dyn FnMut() + 'a>,
    /// Microseconds.
    took: Vec<f64>,
}

pub fn measure(options: &Options, report: &mut Report) {
    let source = WitSource { path: "codec.wit".to_owned(), text: WIT.to_owned() };
    let wit = Wit::parse(&[source]).unwrap();
    let function = |name: &str| wit.function("test:codec/values", name).unwrap().typed().unwrap();
    let mut works = small(function("get"));
    let money = |cents: i64| Value::Record(vec![Value::S64(cents), Value::String("EUR".to_owned())]);
    let records = (0..LARGE as i64 / 8).map(|number| money(number * 7919)).collect();
    works.extend(large("list of records", function("records"), Value::List(records)));
    let numbers = (0..LARGE as u32 / 4).map(|number| Value::U32(number.wrapping_mul(7919)));
    works.extend(large("list<u32>", function("numbers"), Value::List(numbers.collect())));
    works.extend(large("list<u8>", function("bytes"), Value::Bytes(vec![42; LARGE].into())));
    for _ in 0..if options.quick { 1 } else { 15 } {
        works.iter_mut().for_each(Work::round);
    }
    report.rows.extend(works.into_iter().map(Work::row));
}

/// A call as most are: a number in, a record of two fields out.
fn small(ty: &FunctionType) -> Vec<Work<'_>> {
    let params = vec![Value::U64(123_456)];
    let money = Value::Record(vec![Value::S64(1999), Value::String("EUR".to_owned())]);
    let result = Value::Result(Ok(Some(Box::new(money))));
    let (mut encoded_params, mut encoded_result) = (Vec::new(), Vec::new());
    encode_params(ty, &params, &mut encoded_params).unwrap();
    encode_result(ty, Some(&result), &mut encoded_result).unwrap();
    let (mut out, mut text, limits) = (Vec::new(), Vec::new(), Limits::default());
    let json = br#"{"id":123456}"#;
    vec![
        Work::new("decode, small params", None, move || {
            black_box(decode_params(ty, black_box(&encoded_params), &limits).unwrap());
        }),
        Work::new("encode, small result", None, move || {
            out.clear();
            encode_result(ty, black_box(Some(&result)), &mut out).unwrap();
        }),
        Work::new("decode, small result", None, move || {
            black_box(decode_result(ty, black_box(&encoded_result), &limits).unwrap());
        }),
        Work::new("to JSON, small params", None, move || {
            text.clear();
            params_to_json(ty, black_box(&params), &JsonRules::default(), &mut text).unwrap();
        }),
        Work::new("from JSON, small params", None, move || {
            black_box(params_from_json_text(ty, black_box(json), &JsonRules::default(), &limits).unwrap());
        }),
    ]
}

fn large<'a>(name: &str, ty: &'a FunctionType, value: Value) -> Vec<Work<'a>> {
    let limits = Limits { bytes: 64 * LARGE, items: 64 * LARGE, ..Limits::default() };
    let rules = JsonRules::default();
    let values = [value];
    let (mut encoded, mut json) = (Vec::new(), Vec::new());
    encode_params(ty, &values, &mut encoded).unwrap();
    params_to_json(ty, &values, &rules, &mut json).unwrap();
    let (bytes, text) = (encoded.len(), json.len());
    let (mut out, mut written) = (Vec::with_capacity(bytes), Vec::with_capacity(text));
    let copy = values.clone();
    vec![
        Work::new(&format!("decode, {name}"), Some(bytes), move || {
            black_box(decode_params(ty, black_box(&encoded), &limits).unwrap());
        }),
        Work::new(&format!("encode, {name}"), Some(bytes), move || {
            out.clear();
            encode_params(ty, black_box(&values), &mut out).unwrap();
        }),
        Work::new(&format!("to JSON, {name}"), Some(text), move || {
            written.clear();
            params_to_json(ty, black_box(&copy), &rules, &mut written).unwrap();
        }),
        Work::new(&format!("from JSON, {name}"), Some(text), move || {
            black_box(params_from_json_text(ty, black_box(&json), &rules, &limits).unwrap());
        }),
    ]
}

impl<'a> Work<'a> {
    fn new(name: &str, bytes: Option<usize>, run: impl FnMut() + 'a) -> Self {
        Self { name: format!("f {name}"), bytes, run: Box::new(run), took: Vec::new() }
    }

    fn round(&mut self) {
        // What is short is repeated, because the clock is not that fine.
        let (samples, batch) = if self.bytes.is_some() { (2, 1) } else { (64, 256) };
        for _ in 0..samples {
            let began = Instant::now();
            for _ in 0..batch {
                (self.run)();
            }
            self.took.push(began.elapsed().as_nanos() as f64 / 1e3 / f64::from(batch));
        }
    }

    fn row(mut self) -> Row {
        let p50_us = percentile(&mut self.took, 0.5);
        Row {
            name: self.name,
            concurrency: 1,
            p50_us,
            p99_us: percentile(&mut self.took, 0.99),
            per_s: 1e6 / p50_us,
            mb_per_s: self.bytes.map(|bytes| bytes as f64 / p50_us),
            cpu_us: None,
        }
    }
}
