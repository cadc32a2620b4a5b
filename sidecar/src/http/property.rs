//! The property that the module exists for: whatever the parameters are, the service sees the mapped request or nothing.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use portcullis_value::Value;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use super::fixture::{self, string};
use super::legacy::{Legacy, Seen};
use super::upstream::{HttpCall, HttpFailure, HttpUpstream};
use super::{HttpUpstreamConfig, Route};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

static ROUTE: LazyLock<Route> = LazyLock::new(|| {
    fixture::route(
        "(id: string, part: string, q: string, tags: list<string>, tenant: option<string>, note: string)",
        "method = 'PUT'
         path = '/v1/{id}/parts/p-{part}.json'
         query = { fixed = 'a&b', q = '{q}', tag = '{tags}' }
         headers = { x-tenant = '{tenant}', x-kind = 'k' }
         body = 'note'
         body_as = 'text'",
    )
});

/// Strings that break things, pieces of them, and anything else.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "..",
        ".",
        "/",
        "\\",
        "%2f",
        "%2F",
        "%2e%2e",
        "%00",
        "\r\n",
        "\n",
        "\r",
        "\0",
        "\t",
        "\u{7f}",
        "\u{85}",
        "?",
        "#",
        "&",
        "=",
        ";",
        "+",
        " ",
        "%",
        "\"",
        "'",
        "<",
        ">",
        "{",
        "}",
        "[",
        "]",
        "|",
        "^",
        "`",
        "@",
        ":",
        "//",
        "http://evil.example/",
        "HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET / ",
        "\u{feff}",
        "\u{2028}",
        "\u{ff0e}",
        "é",
        "\u{10ffff}",
        "a",
        "0",
        "-",
        "_",
        "~",
    ]);
    prop_oneof![
        4 => prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat()),
        2 => any::<String>(),
        2 => "[ -~]{0,20}",
        1 => "[a-z0-9]{1,10}",
        1 => "[ -~]{8000,9000}",
    ]
}

#[derive(Clone, Debug)]
struct Args {
    id: String,
    part: String,
    q: String,
    tags: Vec<String>,
    tenant: Option<String>,
    note: String,
}

fn args() -> impl Strategy<Value = Args> {
    // Mostly harmless in all places but one, so that a refusal in one does not hide what another lets through.
    let plain = || "[a-zA-Z0-9 .%/~-]{1,8}";
    let each = (
        hostile(),
        hostile(),
        hostile(),
        prop::collection::vec(hostile(), 0..3),
        prop::option::of(hostile()),
        hostile(),
    );
    let rest =
        (plain(), plain(), plain(), prop::collection::vec(plain(), 0..3), prop::option::of("[!-~]{1,8}"), plain());
    (each, rest, 0..8_usize).prop_map(|(hostile, plain, place)| {
        let pick =
            |number: usize, hostile: String, plain: String| if [number, 7].contains(&place) { hostile } else { plain };
        Args {
            id: pick(0, hostile.0, plain.0),
            part: pick(1, hostile.1, plain.1),
            q: pick(2, hostile.2, plain.2),
            tags: if [3, 7].contains(&place) { hostile.3 } else { plain.3 },
            tenant: if [4, 7].contains(&place) { hostile.4 } else { plain.4 },
            note: pick(5, hostile.5, plain.5),
        }
    })
}

impl Args {
    fn values(&self) -> Vec<Value> {
        vec![
            string(&self.id),
            string(&self.part),
            string(&self.q),
            Value::List(self.tags.iter().map(|tag| string(tag)).collect()),
            self.tenant.as_deref().map_or_else(Value::none, |tenant| Value::some(string(tenant))),
            string(&self.note),
        ]
    }

    /// Whether one of them may not be sent, by the rules as the documentation has them and not as the code does.
    fn must_be_refused(&self) -> bool {
        let control = |text: &str| text.chars().any(|c| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c));
        let segment = |text: &str| {
            let dots = text.replace('\\', "/").split('/').any(|part| part == "." || part == "..");
            text.is_empty() || dots || control(text)
        };
        let header =
            |text: &str| text.is_empty() || control(text) || !text.is_ascii() || text.trim_matches(' ') != text;
        segment(&self.id)
            || segment(&self.part)
            || control(&self.q)
            || self.tags.iter().any(|tag| control(tag))
            || self.tenant.as_deref().is_some_and(header)
    }

    /// Whether they are so long that a limit may refuse them.
    fn may_be_too_long(&self) -> bool {
        let encoded = |text: &str| 3 * text.len();
        let tags: usize = self.tags.iter().map(|tag| encoded(tag) + 5).sum();
        encoded(&self.id) + encoded(&self.part) + encoded(&self.q) + tags + 100 > 8192
            || self.tenant.as_ref().is_some_and(|tenant| tenant.len() > 8192)
    }

    fn arrived_in(&self, seen: &Seen) -> Result<(), TestCaseError> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(String::from);
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        let segments: Vec<_> = path.split('/').map(|segment| decoded(segment).unwrap()).collect();
        let part = format!("p-{}.json", self.part);
        prop_assert_eq!(segments, ["", "v1", &self.id, "parts", &part]);
        let pairs: Vec<_> = query
            .split('&')
            .map(|pair| pair.split_once('=').map(|(key, value)| (decoded(key).unwrap(), decoded(value).unwrap())))
            .collect::<Option<_>>()
            .unwrap();
        let mut expected = vec![("fixed".to_owned(), "a&b".to_owned()), ("q".to_owned(), self.q.clone())];
        expected.extend(self.tags.iter().map(|tag| ("tag".to_owned(), tag.clone())));
        prop_assert_eq!(pairs, expected);
        let tenant: Vec<_> =
            seen.headers.get_all("x-tenant").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        prop_assert_eq!(tenant, self.tenant.iter().cloned().collect::<Vec<_>>());
        let mut names: Vec<_> = seen.headers.keys().map(ToString::to_string).collect();
        names.sort();
        let mut expected = vec!["content-length", "content-type", "host", "x-kind"];
        if self.note.is_empty() {
            prop_assert_eq!(seen.headers.get("content-length").unwrap(), "0");
        }
        expected.extend(self.tenant.iter().map(|_| "x-tenant"));
        prop_assert_eq!(names, expected);
        prop_assert_eq!(&seen.body, self.note.as_bytes());
        prop_assert_eq!(&seen.method, "PUT");
        Ok(())
    }
}

#[test]
fn whatever_the_parameters_the_service_sees_the_mapped_request_or_nothing() {
    let (legacy, upstream) = RUNTIME.block_on(async {
        let legacy = Legacy::start(|_| Response::new(Full::new(Bytes::new()))).await;
        let upstream = HttpUpstream::new(&HttpUpstreamConfig::new(legacy.url())).unwrap();
        (legacy, upstream)
    });
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&args(), |args| {
            let values = args.values();
            let call = HttpCall { route: &ROUTE, caller: None, trace: None, args: &values, deadline: None };
            let result = RUNTIME.block_on(upstream.exchange(call));
            let seen = legacy.take();
            match result {
                Ok(None) => {
                    prop_assert!(!args.must_be_refused());
                    prop_assert_eq!(seen.len(), 1);
                    let host = legacy.address.to_string();
                    prop_assert_eq!(seen[0].headers.get("host").unwrap(), host.as_str());
                    args.arrived_in(&seen[0])
                }
                Err(HttpFailure::Parameter(refused)) => {
                    prop_assert!(args.must_be_refused() || args.may_be_too_long(), "{}", refused);
                    prop_assert_eq!(seen.len(), 0);
                    Ok(())
                }
                other => Err(TestCaseError::fail(format!("{other:?}"))),
            }
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
