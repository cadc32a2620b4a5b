//! Which header names a mapping or a configuration may set.

use http::HeaderName;

/// Why a header cannot be set from configuration or mapping.
pub(crate) fn forbidden(name: &HeaderName) -> Option<&'static str> {
    match dashed(name).as_str() {
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "content-length"
        | "expect" | "http2-settings" => Some("it frames the message or belongs to one connection (RFC 9110 §7.6.1)"),
        "host" => Some("the authority comes from the base URL"),
        "traceparent" | "tracestate" => Some("the sidecar passes the trace context on itself"),
        name if name.starts_with("proxy-") => Some("it belongs to one connection (RFC 9110 §7.6.1)"),
        _ => None,
    }
}

/// Why a header may be a constant but not filled with a parameter: there are services that route by it, or it is a list of pairs.
pub(crate) fn constant_only(name: &HeaderName) -> Option<&'static str> {
    match dashed(name).as_str() {
        "x-http-method-override" | "x-http-method" | "x-method-override" => Some("services take the method from it"),
        "x-original-url" | "x-rewrite-url" | "x-original-uri" | "x-forwarded-uri" | "x-forwarded-prefix" => {
            Some("services take the path from it")
        }
        "forwarded" | "x-forwarded-host" | "x-forwarded-server" | "x-forwarded-port" | "x-forwarded-proto"
        | "x-host" | "x-original-host" => Some("services take the authority from it"),
        "cookie" => Some("it is a list of pairs, and a parameter could add one"),
        _ => None,
    }
}

/// Whether a service may take two names for one: CGI and its heirs write `-` and `_` alike.
pub(crate) fn same(one: &HeaderName, other: &HeaderName) -> bool {
    dashed(one) == dashed(other)
}

fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_authority_and_connection_headers_are_forbidden() {
        for name in [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "content-length",
            "expect",
            "http2-settings",
            "host",
            "proxy-authorization",
            "proxy-connection",
            "traceparent",
            "tracestate",
            "Content_Length",
            "Transfer_Encoding",
        ] {
            assert!(forbidden(&name.parse().unwrap()).is_some(), "{name}");
        }
        for name in ["authorization", "accept", "x-tenant", "x-http-method-override"] {
            assert!(forbidden(&name.parse().unwrap()).is_none(), "{name}");
        }
    }

    #[test]
    fn a_service_may_take_dashes_and_underscores_for_one() {
        assert!(same(&"x_caller".parse().unwrap(), &"X-Caller".parse().unwrap()));
        assert!(!same(&"x-caller".parse().unwrap(), &"xcaller".parse().unwrap()));
    }
}
