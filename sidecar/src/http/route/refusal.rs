//! Why a parameter cannot be sent.

/// A parameter that cannot be put where the route has it. The caller is at fault, and nothing was sent.
///
/// The text names the parameter and the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter `{parameter}` cannot fill {place}: {fault}")]
pub struct RefusedParameter {
    /// The WIT name of the parameter, with the names of the record fields that lead to the value: `page.limit`.
    pub parameter: String,
    /// Where the route puts it.
    pub place: String,
    /// What is wrong with it there.
    pub fault: ParameterFault,
}

/// What is wrong with a parameter in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterFault {
    /// An empty path segment names another resource, an empty header often means "all".
    #[error("it is empty")]
    Empty,
    /// `.` or `..`, alone or between slashes: a server that decodes before it routes would climb (RFC 3986 §5.2.4).
    #[error("it is or contains a `.` or `..` path segment")]
    DotSegment,
    /// A slash or backslash, where the route says `slashes = "refuse"`.
    #[error("it contains a slash or a backslash")]
    Slash,
    /// A control character (Unicode category Cc), CR, LF and NUL among them.
    #[error("it contains a control character")]
    ControlCharacter,
    /// A header value is visible ASCII and spaces (RFC 9110 §5.5).
    #[error("it contains a character that is not ASCII")]
    NotAscii,
    /// Space around a header value does not arrive (RFC 9110 §5.5).
    #[error("it begins or ends with a space")]
    OuterSpace,
    /// The request target or the header value would be longer than its limit.
    #[error("the result would be longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The value is not of the type that the WIT gives the parameter.
    #[error("it is not a value of its type")]
    WrongType,
    /// The value has no JSON form.
    #[error("{0}")]
    Json(String),
}
