//! Why a head is refused, and with which status.

/// Why a head is refused. Each sentence goes on from "the request is refused: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences say what they are")]
pub enum Refused {
    #[error("it is a TLS handshake, and this port speaks plain HTTP")]
    Tls,
    /// Not a mistake of the peer's: who speaks HTTP/2 takes the connection from its first byte on.
    #[error("it is the preface of HTTP/2")]
    Http2Preface,
    #[error("it does not begin like HTTP")]
    NotHttp,
    #[error("more than two empty lines precede it")]
    EmptyLines,
    #[error("a line of it ends with LF alone instead of CR LF")]
    BareLf,
    #[error("a CR in it is not followed by LF")]
    BareCr,
    #[error("it contains a NUL byte")]
    Nul,
    #[error("its head is too long")]
    TooLong,
    #[error("its head has too many fields")]
    TooManyFields,
    #[error("its bytes are not exactly one head")]
    NotOneHead,

    #[error("its first line is not `METHOD TARGET HTTP/1.1`")]
    RequestLine,
    #[error("its first line is not `HTTP/1.1 STATUS REASON`")]
    StatusLine,
    #[error("its version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    #[error("its method is not a token")]
    Method,
    /// A reader that does not care for case would see HEAD or CONNECT, and another end of the answer.
    #[error("its method is a known one in the wrong case of letters")]
    MethodCase,
    #[error("CONNECT is for forward proxies")]
    Connect,
    /// RFC 9110, 9.3.8.
    #[error("it is a TRACE with a body")]
    TraceBody,
    #[error("its first line, or the target in it, is too long")]
    TargetTooLong,
    #[error("its target has a control character or one that is not ASCII")]
    TargetCharacter,
    #[error("its target has a fragment")]
    Fragment,
    #[error("its target is neither a path nor an http or https URL")]
    TargetForm,
    #[error("its target is `*`, which only OPTIONS may have")]
    Asterisk,

    #[error("white space stands between the name of a field and its colon")]
    SpaceBeforeColon,
    #[error("a line of its head begins with white space")]
    Folded,
    #[error("the name of a field is not a token")]
    FieldName,
    #[error("the value of a field has a control character")]
    FieldValue,
    /// Programs that read fields as variables of the environment take `_` and `-` for the same.
    #[error("the name of a field has `_` where a field that proxies rely on has `-`")]
    LookAlike,
    #[error("Connection is not a list of tokens")]
    Connection,
    #[error("Connection names too many fields")]
    ConnectionTooLong,
    /// RFC 9113, 8.2.2.
    #[error("it has a field that concerns one connection, which HTTP/2 does not have")]
    ConnectionField,

    #[error("it has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    #[error("it has more than one Content-Length")]
    LengthRepeated,
    #[error("its Content-Length is not a number of bytes")]
    Length,
    #[error("its Content-Length is not the length of its body")]
    LengthDisagrees,
    #[error("it has more than one Transfer-Encoding")]
    CodingRepeated,
    #[error("it has a Transfer-Encoding, which HTTP/1.0 does not have")]
    CodingInHttp10,
    #[error("its Transfer-Encoding is not `chunked`")]
    Coding,
    #[error("its Transfer-Encoding has a coding besides `chunked`")]
    CodingUnknown,
    /// RFC 9112, 6.1.
    #[error("its status has no body, and it announces one")]
    BodyOfInterim,

    #[error("it has no Host")]
    HostMissing,
    #[error("it has more than one Host")]
    HostRepeated,
    #[error("its host is not a name or an address with an optional port")]
    Host,
    #[error("its target names another host than Host")]
    HostDisagrees,
    #[error("it expects something else than `100-continue`")]
    Expectation,
}

impl Refused {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::TooLong | Self::TooManyFields | Self::ConnectionTooLong => 431,
            // RFC 9112, 6.1; RFC 9110, 9.1.
            Self::CodingUnknown | Self::Connect => 501,
            Self::Version | Self::Http2Preface => 505,
            Self::Tls
            | Self::NotHttp
            | Self::EmptyLines
            | Self::BareLf
            | Self::BareCr
            | Self::Nul
            | Self::NotOneHead
            | Self::RequestLine
            | Self::StatusLine
            | Self::Method
            | Self::MethodCase
            | Self::TraceBody
            | Self::TargetCharacter
            | Self::Fragment
            | Self::TargetForm
            | Self::Asterisk
            | Self::SpaceBeforeColon
            | Self::Folded
            | Self::FieldName
            | Self::FieldValue
            | Self::LookAlike
            | Self::Connection
            | Self::ConnectionField
            | Self::LengthAndCoding
            | Self::LengthRepeated
            | Self::Length
            | Self::LengthDisagrees
            | Self::CodingRepeated
            | Self::CodingInHttp10
            | Self::Coding
            | Self::BodyOfInterim
            | Self::HostMissing
            | Self::HostRepeated
            | Self::Host
            | Self::HostDisagrees => 400,
        }
    }

    /// The reason in one word, for logs and metrics. Words do not change from version to version.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http2Preface => "http2-preface",
            Self::NotHttp => "not-http",
            Self::EmptyLines => "empty-lines",
            Self::BareLf => "bare-lf",
            Self::BareCr => "bare-cr",
            Self::Nul => "nul",
            Self::TooLong => "too-long",
            Self::TooManyFields => "too-many-fields",
            Self::NotOneHead => "not-one-head",
            Self::RequestLine => "request-line",
            Self::StatusLine => "status-line",
            Self::Version => "version",
            Self::Method => "method",
            Self::MethodCase => "method-case",
            Self::Connect => "connect",
            Self::TraceBody => "trace-body",
            Self::TargetTooLong => "target-too-long",
            Self::TargetCharacter => "target-character",
            Self::Fragment => "fragment",
            Self::TargetForm => "target-form",
            Self::Asterisk => "asterisk",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::Folded => "folded",
            Self::FieldName => "field-name",
            Self::FieldValue => "field-value",
            Self::LookAlike => "look-alike",
            Self::Connection => "connection",
            Self::ConnectionTooLong => "connection-too-long",
            Self::ConnectionField => "connection-field",
            Self::LengthAndCoding => "length-and-coding",
            Self::LengthRepeated => "length-repeated",
            Self::Length => "length",
            Self::LengthDisagrees => "length-disagrees",
            Self::CodingRepeated => "coding-repeated",
            Self::CodingInHttp10 => "coding-in-http10",
            Self::Coding => "coding",
            Self::CodingUnknown => "coding-unknown",
            Self::BodyOfInterim => "body-of-interim",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::Host => "host",
            Self::HostDisagrees => "host-disagrees",
            Self::Expectation => "expectation",
        }
    }
}
