//! What the gateway changes in requests and answers on their way, and where it sends clients.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::limits::SpecError;
use crate::route::{FieldName, HostName, HttpMatch, PathPrefix};

/// The most headers that one service changes in one direction. Each is a line in every message.
pub const CHANGES_MAX: usize = 32;
/// The longest text, and with [`VARIABLES_MAX`] the bound of what one text can become.
pub const TEMPLATE_LEN_MAX: usize = 1024;
/// The most variables of one text. A path may be as long as a head: eight are half a megabyte at
/// the very worst, and nobody writes more.
pub const VARIABLES_MAX: usize = 8;
/// The most redirects of one service.
pub const REDIRECTS_MAX: usize = 64;

/// What a variable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// `{client}`: the client's address, without port.
    Client,
    /// `{request_id}`: the request's id.
    RequestId,
    /// `{host}`: the host that was asked for, as the client wrote it, with its port.
    Host,
    /// `{path}`: the path that was asked for, without query.
    Path,
    /// `{rest}`: what follows in the path after the part that matched; empty or begins with `/`.
    Rest,
    /// `{query}`: the query with its `?`, or nothing.
    Query,
}

impl Variable {
    /// Every variable, with the word that stands in braces.
    pub const ALL: &[(&str, Self)] = &[
        ("client", Self::Client),
        ("request_id", Self::RequestId),
        ("host", Self::Host),
        ("path", Self::Path),
        ("rest", Self::Rest),
        ("query", Self::Query),
    ];

    /// The word that stands in braces.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::RequestId => "request_id",
            Self::Host => "host",
            Self::Path => "path",
            Self::Rest => "rest",
            Self::Query => "query",
        }
    }
}

/// One part of a [`FieldTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldPiece {
    /// Text that stands as it is.
    Literal(String),
    /// What each request fills in.
    Variable(Variable),
}

/// Why a text cannot be the value of a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldTemplateError {
    /// A brace was opened and not closed.
    #[error("`{{` is not closed; write `{{{{` for a brace that stands for itself")]
    Open,
    /// A brace was closed that was not opened.
    #[error("`}}` closes nothing; write `}}}}` for a brace that stands for itself")]
    Close,
    /// What stands in braces is none of ours.
    #[error("`{{{found}}}` is not known")]
    Unknown {
        /// The text between the braces.
        found: String,
    },
    /// It could end the header, or is no ASCII.
    #[error("a header holds visible ASCII characters, and blanks only between them")]
    Character,
    /// It is longer than [`TEMPLATE_LEN_MAX`], or has more than [`VARIABLES_MAX`] variables.
    #[error("it has at most 1024 characters and 8 variables")]
    TooLong,
}

/// The value of a header, with `{client}` and other variables in it; `{{` and `}}` stand for braces.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct FieldTemplate(Vec<FieldPiece>);

impl FieldTemplate {
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, FieldTemplateError> {
        let legal = |b: u8| b.is_ascii_graphic() || b == b' ';
        if !text.bytes().all(legal) || text.trim_matches(' ') != text {
            return Err(FieldTemplateError::Character);
        }
        if text.len() > TEMPLATE_LEN_MAX {
            return Err(FieldTemplateError::TooLong);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(FieldTemplateError::Close);
            } else {
                let (inner, after) = rest.split_once('}').ok_or(FieldTemplateError::Open)?;
                if !literal.is_empty() {
                    pieces.push(FieldPiece::Literal(core::mem::take(&mut literal)));
                }
                let known = Variable::ALL.iter().find(|(word, _)| *word == inner);
                let (_, variable) = known.ok_or_else(|| FieldTemplateError::Unknown {
                    found: inner.to_string(),
                })?;
                pieces.push(FieldPiece::Variable(*variable));
                rest = after;
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(FieldPiece::Literal(literal));
        }
        let template = Self(pieces);
        if template.variables().count() > VARIABLES_MAX {
            return Err(FieldTemplateError::TooLong);
        }
        Ok(template)
    }

    /// The parts in order.
    pub fn pieces(&self) -> &[FieldPiece] {
        &self.0
    }

    /// The variables in order.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.0.iter().filter_map(|piece| match piece {
            FieldPiece::Variable(variable) => Some(*variable),
            FieldPiece::Literal(_) => None,
        })
    }
}

impl fmt::Display for FieldTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                FieldPiece::Literal(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                FieldPiece::Variable(variable) => write!(f, "{{{}}}", variable.word())?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for FieldTemplate {
    type Error = FieldTemplateError;
    fn try_from(text: String) -> Result<Self, FieldTemplateError> {
        Self::parse(&text)
    }
}

impl From<FieldTemplate> for String {
    fn from(template: FieldTemplate) -> Self {
        template.to_string()
    }
}

/// What becomes of a request before an instance sees it, and of its answer before the client does.
/// It belongs to a version: an instance gets what its own version wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Rewrite {
    /// The host that the instance sees instead of the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// What becomes of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// What becomes of the request's headers.
    #[serde(skip_serializing_if = "FieldChanges::is_empty")]
    pub request: FieldChanges,
    /// What becomes of the answer's headers.
    #[serde(skip_serializing_if = "FieldChanges::is_empty")]
    pub response: FieldChanges,
}

impl Rewrite {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it can be carried out.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        for (changes, key) in [
            (&self.request, "traffic.rewrite.request"),
            (&self.response, "traffic.rewrite.response"),
        ] {
            let expected = "at most 32 headers, none of which frames, names or traces a message";
            if changes.len() > CHANGES_MAX || changes.names().any(|name| !may_change(name)) {
                return Err(SpecError { key, expected });
            }
            let rests = changes.templates().any(|template| {
                template
                    .variables()
                    .any(|variable| variable == Variable::Rest)
            });
            if rests {
                let expected = "without `{rest}`, which is for redirects";
                return Err(SpecError { key, expected });
            }
        }
        Ok(())
    }
}

/// What becomes of a path's beginning, by whole segments. A path that begins otherwise stays.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathRewrite {
    /// It is taken away.
    Strip(PathPrefix),
    /// The first becomes the second.
    Replace(PathPrefix, PathPrefix),
}

impl PathRewrite {
    /// The beginning that is looked for, and what stands there instead.
    pub fn parts(&self) -> (&PathPrefix, &str) {
        match self {
            Self::Strip(from) => (from, ""),
            // The root as a beginning adds nothing.
            Self::Replace(from, to) => (from, to.as_str().trim_end_matches('/')),
        }
    }
}

/// What becomes of the headers of a message: first what is taken out, then what is set, then what
/// is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FieldChanges {
    /// These are taken out.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<FieldName>,
    /// These stand there once with this value, whatever was there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<FieldName, FieldTemplate>,
    /// These stand there once more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<FieldName, FieldTemplate>,
}

impl FieldChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many headers are named.
    pub fn len(&self) -> usize {
        self.remove.len() + self.set.len() + self.add.len()
    }

    /// The headers that are named.
    pub fn names(&self) -> impl Iterator<Item = &FieldName> {
        self.remove
            .iter()
            .chain(self.set.keys())
            .chain(self.add.keys())
    }

    fn templates(&self) -> impl Iterator<Item = &FieldTemplate> {
        self.set.values().chain(self.add.values())
    }
}

/// Headers that nobody may change by hand: they say where a message ends, for which connection it
/// is, for whom, or which way it came. The gateway writes them itself.
const UNTOUCHABLE: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "mainstay-instance",
    "mainstay-reason",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Whether a rewriting may name this header.
pub fn may_change(name: &FieldName) -> bool {
    UNTOUCHABLE.binary_search(&name.as_str()).is_err()
}

/// Requests that are answered with another place to ask at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Which requests.
    pub on: HttpMatch,
    /// Where to.
    pub to: Target,
    /// How.
    pub status: RedirectStatus,
}

/// Where a redirect leads.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Target(FieldTemplate);

/// Why a text cannot be where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no value of a header.
    #[error(transparent)]
    Template(#[from] FieldTemplateError),
    /// It begins otherwise, so that the client's text could say which server is meant.
    #[error("a target begins with `/`, or with `http://` or `https://` and a host")]
    Start,
    /// A blank ends a URL.
    #[error("a target holds no blanks")]
    Blank,
}

impl Target {
    /// Reads a text. Which server is meant stands in it as written, or is the one that was asked.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let template = FieldTemplate::parse(text)?;
        if text.contains(' ') {
            return Err(TargetError::Blank);
        }
        let pieces = template.pieces();
        let Some(FieldPiece::Literal(first)) = pieces.first() else {
            return Err(TargetError::Start);
        };
        let behind = ["http://", "https://"]
            .iter()
            .find_map(|scheme| first.strip_prefix(scheme));
        let names_server = match (behind, pieces.get(1)) {
            (Some(""), second) => second == Some(&FieldPiece::Variable(Variable::Host)),
            (Some(host), _) => host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['),
            // `//host` and `/\host` are other servers to a browser.
            (None, _) => {
                first.starts_with('/') && !first.starts_with("//") && !first.starts_with("/\\")
            }
        };
        if names_server {
            Ok(Self(template))
        } else {
            Err(TargetError::Start)
        }
    }

    /// The text with its variables.
    pub fn template(&self) -> &FieldTemplate {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;
    fn try_from(text: String) -> Result<Self, TargetError> {
        Self::parse(&text)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// The status of a redirect (RFC 9110, 15.4).
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "u16"))]
#[serde(try_from = "u16", into = "u16")]
pub enum RedirectStatus {
    /// 301: for ever; a POST may become a GET.
    MovedPermanently,
    /// 302: for now; a POST may become a GET.
    #[default]
    Found,
    /// 307: for now, with the same method.
    TemporaryRedirect,
    /// 308: for ever, with the same method.
    PermanentRedirect,
}

/// The status is none of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a redirect's status is 301, 302, 307 or 308, found {0}")]
pub struct RedirectStatusError(u16);

impl RedirectStatus {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self::MovedPermanently,
        Self::Found,
        Self::TemporaryRedirect,
        Self::PermanentRedirect,
    ];

    /// The number.
    pub const fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::TemporaryRedirect => 307,
            Self::PermanentRedirect => 308,
        }
    }
}

impl TryFrom<u16> for RedirectStatus {
    type Error = RedirectStatusError;
    fn try_from(code: u16) -> Result<Self, RedirectStatusError> {
        let known = Self::ALL.into_iter().find(|status| status.code() == code);
        known.ok_or(RedirectStatusError(code))
    }
}

impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> Self {
        status.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_as_it_is_read_and_cannot_end_a_header() {
        for text in [
            "",
            "a",
            "{client}",
            "id={request_id}; {{x}} {host}{path}{query}",
        ] {
            let read = FieldTemplate::parse(text).map(String::from);
            assert_eq!(read.as_deref(), Ok(text));
        }
        for text in ["a\r\nb", "a\0", "ä", " a", "a\t"] {
            let refused = Err(FieldTemplateError::Character);
            assert_eq!(FieldTemplate::parse(text), refused, "{text:?}");
        }
        assert_eq!(FieldTemplate::parse("{a"), Err(FieldTemplateError::Open));
        assert_eq!(FieldTemplate::parse("a}"), Err(FieldTemplateError::Close));
        let many = "{path}".repeat(VARIABLES_MAX + 1);
        assert_eq!(
            FieldTemplate::parse(&many),
            Err(FieldTemplateError::TooLong)
        );
    }

    #[test]
    fn a_clients_text_never_says_which_server_a_redirect_means() {
        for text in [
            "/new{rest}",
            "https://{host}{path}{query}",
            "http://a.example.com{path}",
            "/",
        ] {
            assert!(Target::parse(text).is_ok(), "{text}");
        }
        for text in [
            "{path}",
            "//{host}",
            "/\\x",
            "https://{path}",
            "https://",
            "ftp://a",
            "new",
            "",
            "https:///{path}",
        ] {
            assert_eq!(Target::parse(text), Err(TargetError::Start), "{text}");
        }
    }

    #[test]
    fn what_frames_a_message_stays_the_gateways_own() {
        assert!(UNTOUCHABLE.is_sorted(), "it is searched by halves");
        let name = |text: &str| FieldName::parse(text).expect("legal");
        for text in [
            "Content-Length",
            "Transfer-Encoding",
            "host",
            "X-Forwarded-For",
        ] {
            assert!(!may_change(&name(text)), "{text}");
        }
        assert!(may_change(&name("server")));
        let mut rewrite = Rewrite::default();
        rewrite.response.remove.insert(name("content-length"));
        assert!(rewrite.check().is_err());
    }
}
