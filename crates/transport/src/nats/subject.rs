use std::{fmt, str::FromStr};

use super::called::CalledName;
use crate::header::{Header, HeaderLimits};

/// The tokens that the protocol puts between the address and the function.
pub(super) const PROTOCOL: &str = "wrpc.0.0.1";
/// The longest id in an address, in bytes.
const LONGEST_TOKEN: usize = 64;
/// Ids that would make one address look like another.
const RESERVED: [&str; 3] = ["vc", "host", "wrpc"];
/// The longest subject anybody may ask us to publish to, in bytes; a NATS server takes control lines of 4096.
const LONGEST_REPLY: usize = 512;

/// One id in an address: `[A-Za-z0-9_-]{1,64}`, never `vc`, `host` or `wrpc`. Nobody but this crate puts dots into an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Box<str>);

/// A text is no [`Token`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Empty, or longer than 64 bytes.
    #[error("id of {0} bytes, expected 1 to 64")]
    Length(usize),
    /// It holds a character beyond `[A-Za-z0-9_-]`.
    #[error("id holds the character `{}`, expected `[A-Za-z0-9_-]`", .0.escape_unicode())]
    Character(char),
    /// It is a word with a meaning of its own in addresses.
    #[error("id `{0}` is reserved")]
    Reserved(&'static str),
}

impl Token {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.is_empty() || text.len() > LONGEST_TOKEN {
            return Err(InvalidToken::Length(text.len()));
        }
        if let Some(character) = text.chars().find(|&c| !is_token_character(c)) {
            return Err(InvalidToken::Character(character));
        }
        match RESERVED.into_iter().find(|&word| word == text) {
            Some(word) => Err(InvalidToken::Reserved(word)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who calls, by the token under which the NATS server lets an identity publish.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallerToken {
    /// The reserved token `host`: a wasmCloud host, which speaks for its components.
    Host,
    /// The registered short name of one identity.
    Registered(Token),
}

impl CallerToken {
    /// The token as it stands in a subject.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::Registered(token) => token.as_str(),
        }
    }
}

impl FromStr for CallerToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text == "host" { Ok(Self::Host) } else { text.parse().map(Self::Registered) }
    }
}

impl fmt::Display for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a virtual component listens: `{lattice}.vc.{id}.{caller}.wrpc.0.0.1.>`, for every caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualAddress {
    /// The lattice.
    pub lattice: Token,
    /// The virtual component's id in it.
    pub id: Token,
}

impl VirtualAddress {
    /// What to subscribe to: any caller, any function.
    pub fn subscription(&self) -> String {
        format!("{}.vc.{}.*.{PROTOCOL}.>", self.lattice, self.id)
    }

    /// The queue group in which the replicas of the component share its calls.
    pub fn queue_group(&self) -> String {
        format!("{}.vc.{}", self.lattice, self.id)
    }

    /// Reads the subject of a request to this address: who calls what.
    ///
    /// # Errors
    ///
    /// [`InvalidSubject`]
    pub fn parse_request(&self, subject: &str) -> Result<(CallerToken, CalledName), InvalidSubject> {
        let (caller, tail) = split_token(subject, self.lattice.as_str())
            .and_then(|rest| split_token(rest, "vc"))
            .and_then(|rest| split_token(rest, self.id.as_str()))
            .and_then(|rest| rest.split_once('.'))
            .ok_or(InvalidSubject::Address)?;
        let caller = caller.parse()?;
        let tail = split_token(tail, PROTOCOL).ok_or(InvalidSubject::Protocol)?;
        Ok((caller, tail.parse()?))
    }
}

pub(super) fn split_token<'a>(text: &'a str, token: &str) -> Option<&'a str> {
    text.strip_prefix(token)?.strip_prefix('.')
}

/// The subject of a request cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// It does not begin with the address.
    #[error("subject is not of this address")]
    Address,
    /// The caller is no token.
    #[error("caller in the subject is not valid")]
    Caller(#[from] InvalidToken),
    /// What follows the caller is not `wrpc.0.0.1`.
    #[error("subject does not name the protocol `wrpc.0.0.1`")]
    Protocol,
    /// The function's name is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// Instance and function cannot stand in a subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// There is no function.
    #[error("subject names no function")]
    Empty,
    /// Both together are longer than the names of a header may be.
    #[error("name of `{length}` bytes exceeds the limit of {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It holds a wildcard, a space or another character that no WIT name has.
    #[error("name holds the character `{}`", .0.escape_unicode())]
    Character(char),
    /// Two dots in a row, or one at an end.
    #[error("name holds an empty token")]
    EmptyToken,
}

/// Whether `name` may stand in a subject.
pub(super) fn check_name(name: &str) -> Result<(), InvalidName> {
    let limits = HeaderLimits::default();
    let limit = limits.bytes();
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if name.len() > limit {
        return Err(InvalidName::TooLong { length: name.len(), limit });
    }
    if let Some(character) = name.chars().find(|&c| !c.is_ascii_graphic() || matches!(c, '*' | '>')) {
        return Err(InvalidName::Character(character));
    }
    if name.split('.').any(str::is_empty) { Err(InvalidName::EmptyToken) } else { Ok(()) }
}

/// Who is called, and under which token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A virtual component.
    Virtual {
        /// Where it listens.
        address: VirtualAddress,
        /// The token under which we may publish.
        caller: CallerToken,
    },
    /// A component or provider on a wasmCloud host: `{lattice}.{id}.wrpc.0.0.1.…`
    Component {
        /// The lattice.
        lattice: Token,
        /// Its id in it.
        id: Token,
    },
}

impl Target {
    /// The subject on which `header`'s function of this target is called.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when instance or function cannot stand in a subject.
    pub fn request_subject(&self, header: &Header) -> Result<RequestSubject, InvalidName> {
        let Header { instance, function } = header;
        check_name(function)?;
        let mut subject = match self {
            Self::Virtual { address: VirtualAddress { lattice, id }, caller } => {
                format!("{lattice}.vc.{id}.{caller}.{PROTOCOL}.")
            }
            Self::Component { lattice, id } => format!("{lattice}.{id}.{PROTOCOL}."),
        };
        // A function at the root of a world has no instance, and then no token for it.
        if !instance.is_empty() {
            check_name(instance)?;
            subject.push_str(instance);
            subject.push('.');
        }
        subject.push_str(function);
        Ok(RequestSubject(subject.into()))
    }
}

/// The subject of one function of one target. Make it once: a call with it copies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSubject(async_nats::Subject);

impl RequestSubject {
    /// The subject as it goes over the wire.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) const fn subject(&self) -> &async_nats::Subject {
        &self.0
    }
}

/// A subject that a peer asks us to publish to or below: visible ASCII without wildcards, of bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplySubject(async_nats::Subject);

impl ReplySubject {
    pub(super) fn parse(subject: impl Into<async_nats::Subject>) -> Option<Self> {
        let subject = subject.into();
        let sound = subject.len() <= LONGEST_REPLY
            && subject.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>'))
            && !subject.split('.').any(str::is_empty);
        sound.then_some(Self(subject))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) const fn subject(&self) -> &async_nats::Subject {
        &self.0
    }

    /// A subject below it; `suffix` begins with a dot.
    pub(super) fn below(&self, suffix: &str) -> async_nats::Subject {
        let mut subject = String::with_capacity(self.as_str().len() + suffix.len());
        subject.push_str(self.as_str());
        subject.push_str(suffix);
        subject.into()
    }
}

pub(super) const fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> VirtualAddress {
        VirtualAddress { lattice: "default".parse().unwrap(), id: "pay".parse().unwrap() }
    }

    fn header(instance: &str, function: &str) -> Header {
        Header { instance: instance.into(), function: function.into() }
    }

    #[test]
    fn subjects_are_what_the_design_says() {
        let address = address();
        assert_eq!(address.subscription(), "default.vc.pay.*.wrpc.0.0.1.>");
        assert_eq!(address.queue_group(), "default.vc.pay");
        let target = Target::Virtual { address, caller: "shop".parse().unwrap() };
        let subject = target.request_subject(&header("a:b/c@1.0.0", "get")).unwrap();
        assert_eq!(subject.as_str(), "default.vc.pay.shop.wrpc.0.0.1.a:b/c@1.0.0.get");
        let target = Target::Component { lattice: "default".parse().unwrap(), id: "shop".parse().unwrap() };
        assert_eq!(target.request_subject(&header("", "run")).unwrap().as_str(), "default.shop.wrpc.0.0.1.run");
    }

    #[test]
    fn ids_that_could_be_taken_for_something_else_are_refused() {
        for (bad, error) in [
            ("", InvalidToken::Length(0)),
            (&"a".repeat(65), InvalidToken::Length(65)),
            ("a.b", InvalidToken::Character('.')),
            ("a*", InvalidToken::Character('*')),
            (">", InvalidToken::Character('>')),
            ("a b", InvalidToken::Character(' ')),
            ("é", InvalidToken::Character('é')),
            ("vc", InvalidToken::Reserved("vc")),
            ("host", InvalidToken::Reserved("host")),
            ("wrpc", InvalidToken::Reserved("wrpc")),
        ] {
            assert_eq!(bad.parse::<Token>(), Err(error), "{bad}");
        }
        assert_eq!("host".parse::<CallerToken>(), Ok(CallerToken::Host));
        assert!("vc".parse::<CallerToken>().is_err());
    }

    #[test]
    fn a_request_names_its_caller() {
        let (caller, name) = address().parse_request("default.vc.pay.host.wrpc.0.0.1.a:b/c@1.0.0.get").unwrap();
        assert_eq!((caller, name.header()), (CallerToken::Host, header("a:b/c@1.0.0", "get")));
        for (bad, error) in [
            ("default.pay.wrpc.0.0.1.f", InvalidSubject::Address),
            ("default.vc.payer.host.wrpc.0.0.1.f", InvalidSubject::Address),
            ("default.vc.pay.host.wrpc.0.0.2.f", InvalidSubject::Protocol),
            ("default.vc.pay.vc.wrpc.0.0.1.f", InvalidSubject::Caller(InvalidToken::Reserved("vc"))),
            ("default.vc.pay.host.wrpc.0.0.1.a..f", InvalidSubject::Name(InvalidName::EmptyToken)),
            ("default.vc.pay.host.wrpc.0.0.1.>", InvalidSubject::Name(InvalidName::Character('>'))),
        ] {
            assert_eq!(address().parse_request(bad).unwrap_err(), error, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_asked_for_is_what_is_heard(
            caller in "[A-Za-z0-9_-]{1,64}",
            package in "[a-z]{1,9}:[a-z]{1,9}/[a-z-]{1,9}",
            version in "(@[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(-[a-z0-9-]{1,9})?)?",
            function in "[a-z]([a-z0-9-]{0,9})?(\\.[a-z][a-z0-9-]{0,9})?",
        ) {
            let Ok(caller) = caller.parse::<CallerToken>() else { return Ok(()) };
            let header = Header { instance: format!("{package}{version}"), function };
            let target = Target::Virtual { address: address(), caller: caller.clone() };
            let subject = target.request_subject(&header).unwrap();
            let (heard, name) = address().parse_request(subject.as_str()).unwrap();
            prop_assert_eq!(heard, caller);
            prop_assert_eq!(&name.header(), &header);
            prop_assert!(name.candidates().any(|candidate| candidate == header));
        }

        #[test]
        fn any_subject_gets_an_answer(subject: String, tail: String) {
            let _ = address().parse_request(&subject);
            let _ = address().parse_request(&format!("default.vc.pay.host.wrpc.0.0.1.{tail}"));
            if let Some(reply) = ReplySubject::parse(subject.as_str()) {
                prop_assert!(!reply.as_str().contains([' ', '\r', '\n', '*', '>']));
            }
        }
    }
}
