//! Which requests from outside belong to a service.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The most matches of one service, redirects apart. Each request is held against those of its
/// host.
pub const MATCHES_MAX: usize = 64;
/// The most conditions of one match, methods apart.
pub const CONDITIONS_MAX: usize = 16;
/// The longest name of a header, cookie or method, and the longest value that is compared.
pub const NAME_LEN_MAX: usize = 128;
/// The longest value that is compared.
pub const VALUE_LEN_MAX: usize = 1024;

/// Why a text is not a host name or a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// The host name is empty or longer than RFC 1035 allows.
    #[error("a host name has 1 to 253 characters")]
    HostLength,
    /// A label is empty, too long, or holds a character that no host name may.
    #[error(
        "a host name is labels of a-z, 0-9 and `-`, joined by dots, as in `orders.example.com`"
    )]
    HostLabel,
    /// The path does not begin at the root.
    #[error("a path starts with `/`")]
    PathStart,
    /// The path holds a query, a fragment, a blank or a control character.
    #[error("a path holds no `?`, `#`, blanks or control characters")]
    PathCharacter,
    /// A `*` stands elsewhere than for the first labels.
    #[error("a `*` stands for the first labels of a host name, as in `*.example.com`")]
    HostWildcard,
    /// It is no token (RFC 9110, 5.6.2).
    #[error("a name has 1 to 128 letters, digits and characters of !#$%&'*+-.^_`|~")]
    Name,
    /// A method is written in capitals (RFC 9110, 9.1: methods differ by case).
    #[error("a method is written in capitals, as in `GET`")]
    Method,
    /// The value could not stand in a header.
    #[error("a value has up to 1024 visible ASCII characters, with blanks only between them")]
    Value,
    /// There is nothing to match.
    #[error("a list of matches is not empty")]
    NoMatch,
    /// There is too much to match.
    #[error("at most 64 matches, of at most 16 conditions each")]
    TooMany,
}

/// A host name in lower case, without port and final dot.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// Checks `text`, which may be in any case, and takes it as a host name.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        if text.is_empty() || text.len() > 253 {
            return Err(MatchError::HostLength);
        }
        let legal = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !text.split('.').all(legal) {
            return Err(MatchError::HostLabel);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The host name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The beginning of a path, matched by whole segments: `/shop` matches `/shop` and `/shop/x`, not
/// `/shopping`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Checks `text` and takes it as a prefix; a final `/` (but the root) is dropped.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        if !text.starts_with('/') {
            return Err(MatchError::PathStart);
        }
        let illegal = |b: u8| !b.is_ascii_graphic() || b == b'?' || b == b'#';
        if text.bytes().any(illegal) {
            return Err(MatchError::PathCharacter);
        }
        Ok(Self(match text.trim_end_matches('/') {
            "" => "/".to_owned(),
            trimmed => trimmed.to_owned(),
        }))
    }

    /// The prefix as text: `/`, or a path without a final `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request's path (without query) lies at or below this prefix.
    pub fn covers(&self, path: &str) -> bool {
        if self.0 == "/" {
            return true;
        }
        path.strip_prefix(self.0.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

macro_rules! text_conversions {
    ($($type:ident),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl TryFrom<String> for $type {
            type Error = MatchError;
            fn try_from(text: String) -> Result<Self, MatchError> {
                Self::parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0
            }
        }
    )*};
}
text_conversions!(
    HostName, PathPrefix, FieldName, CookieName, MethodName, MatchValue
);

fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(legal)
}

/// Whether a text can stand in a header as its whole value.
pub(crate) fn is_field_value(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() || b == b' ';
    text.len() <= VALUE_LEN_MAX && text.bytes().all(legal) && text.trim_matches(' ') == text
}

/// The name of a header, in lower case.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(String);

impl FieldName {
    /// Checks `text`, which may be in any case.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        if is_token(text) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(MatchError::Name)
        }
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a cookie; names that differ by case are different (RFC 6265).
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct CookieName(String);

impl CookieName {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        if is_token(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MatchError::Name)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a method, in capitals.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct MethodName(String);

impl MethodName {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        if !is_token(text) {
            return Err(MatchError::Name);
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(MatchError::Method);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a header or a cookie must say.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct MatchValue(String);

impl MatchValue {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        if is_field_value(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MatchError::Value)
        }
    }

    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One host, or all below one.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This host.
    Exactly(HostName),
    /// `*.example.com`: every host with one or more labels before it, not `example.com` itself.
    Below(HostName),
}

impl HostPattern {
    /// Reads `orders.example.com` or `*.example.com`.
    pub fn parse(text: &str) -> Result<Self, MatchError> {
        match text.strip_prefix("*.") {
            Some(_) if text.matches('*').count() > 1 => Err(MatchError::HostWildcard),
            Some(domain) => HostName::parse(domain).map(Self::Below),
            None if text.contains('*') => Err(MatchError::HostWildcard),
            None => HostName::parse(text).map(Self::Exactly),
        }
    }

    /// Whether `host`, in lower case, is one of them.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Exactly(name) => name.as_str() == host,
            Self::Below(domain) => host
                .strip_suffix(domain.as_str())
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => name.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = MatchError;
    fn try_from(text: String) -> Result<Self, MatchError> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        alloc::format!("{pattern}")
    }
}

impl From<HostName> for HostPattern {
    fn from(name: HostName) -> Self {
        Self::Exactly(name)
    }
}

/// What headers or cookies must say, by name; `None`: they only have to be there.
pub type Wanted<N> = BTreeMap<N, Option<MatchValue>>;

/// The requests that a service answers. Of several matches that hold, the one with a host wins over
/// the one with `*.`, of these the longer one, and both over the one without a host; then the longer
/// path; then the one with more conditions; then the first by the service's name and in its list.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HttpMatch {
    /// The host asked for; `None` is any.
    pub host: Option<HostPattern>,
    /// Where the path begins.
    pub path: PathPrefix,
    /// One of these methods; empty is any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub methods: BTreeSet<MethodName>,
    /// What headers must say, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Wanted<FieldName>,
    /// What cookies must say, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: Wanted<CookieName>,
}

impl HttpMatch {
    /// A match by host and path alone.
    pub fn new(host: Option<HostPattern>, path: PathPrefix) -> Self {
        Self {
            host,
            path,
            methods: BTreeSet::new(),
            headers: BTreeMap::new(),
            cookies: BTreeMap::new(),
        }
    }

    /// How many conditions it has beside host and path; the methods are one.
    pub fn conditions(&self) -> usize {
        self.headers.len() + self.cookies.len() + usize::from(!self.methods.is_empty())
    }
}

/// As `orders.example.com/shop`, with `*` for any host, and the conditions in brackets.
impl fmt::Display for HttpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}{}", self.path)?,
            None => write!(f, "*{}", self.path)?,
        }
        let mut open = " [";
        for method in &self.methods {
            write!(f, "{open}{method}")?;
            open = " ";
        }
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value));
        let cookies = self.cookies.iter();
        let cookies = cookies.map(|(name, value)| (name.as_str(), value));
        for (kind, (name, value)) in headers
            .map(|one| ("header", one))
            .chain(cookies.map(|one| ("cookie", one)))
        {
            match value {
                Some(value) => write!(f, "{open}{kind} {name}={value}")?,
                None => write!(f, "{open}{kind} {name}")?,
            }
            open = " ";
        }
        if open == " " {
            f.write_str("]")
        } else {
            Ok(())
        }
    }
}

/// The matches of one service: at least one. As JSON, a single one stands for itself: so it was
/// when there could be no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpMatches(Vec<HttpMatch>);

impl HttpMatches {
    /// Takes a list that is not empty.
    pub fn new(matches: Vec<HttpMatch>) -> Result<Self, MatchError> {
        if matches.is_empty() {
            return Err(MatchError::NoMatch);
        }
        Ok(Self(matches))
    }

    /// The first of them.
    pub fn first(&self) -> &HttpMatch {
        self.0.first().expect("it is never empty")
    }

    /// All of them, in their order.
    pub fn iter(&self) -> core::slice::Iter<'_, HttpMatch> {
        self.0.iter()
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a HttpMatches {
    type Item = &'a HttpMatch;
    type IntoIter = core::slice::Iter<'a, HttpMatch>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<HttpMatch> for HttpMatches {
    fn from(one: HttpMatch) -> Self {
        Self(Vec::from([one]))
    }
}

impl Serialize for HttpMatches {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(to),
            all => all.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for HttpMatches {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = HttpMatches;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a match or a list of matches")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HttpMatches, A::Error> {
                HttpMatch::deserialize(MapAccessDeserializer::new(map)).map(HttpMatches::from)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<HttpMatches, A::Error> {
                let mut matches = Vec::new();
                while let Some(one) = seq.next_element()? {
                    matches.push(one);
                }
                HttpMatches::new(matches).map_err(A::Error::custom)
            }
        }

        from.deserialize_any(OneOrMany)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for HttpMatches {
    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        "HttpMatches".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<HttpMatch>();
        let many = generator.subschema_for::<Vec<HttpMatch>>();
        schemars::json_schema!({ "anyOf": [one, many] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_segments_only() {
        let shop = PathPrefix::parse("/shop/").expect("legal");
        assert_eq!(shop.as_str(), "/shop");
        for (path, covered) in [
            ("/shop", true),
            ("/shop/a", true),
            ("/shopping", false),
            ("/", false),
        ] {
            assert_eq!(shop.covers(path), covered, "{path}");
        }
        assert!(PathPrefix::parse("/").is_ok_and(|root| root.covers("/anything")));
        assert_eq!(PathPrefix::parse("shop"), Err(MatchError::PathStart));
        assert_eq!(PathPrefix::parse("/a?b"), Err(MatchError::PathCharacter));
    }

    #[test]
    fn a_host_name_is_taken_in_lower_case() {
        assert_eq!(
            HostName::parse("Orders.Example.com")
                .map(String::from)
                .as_deref(),
            Ok("orders.example.com")
        );
        assert_eq!(HostName::parse("a..b"), Err(MatchError::HostLabel));
        assert_eq!(HostName::parse("a b"), Err(MatchError::HostLabel));
        assert_eq!(HostName::parse(""), Err(MatchError::HostLength));
    }

    #[test]
    fn a_star_stands_for_one_or_more_labels() {
        let below = HostPattern::parse("*.Example.com").expect("legal");
        for (host, covered) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("badexample.com", false),
        ] {
            assert_eq!(below.covers(host), covered, "{host}");
        }
        assert_eq!(String::from(below), "*.example.com");
        for wrong in ["*", "a.*.com", "*.*.com", "*a.com", "a*"] {
            assert_eq!(
                HostPattern::parse(wrong),
                Err(MatchError::HostWildcard),
                "{wrong}"
            );
        }
        assert_eq!(HostPattern::parse("*."), Err(MatchError::HostLength));
    }

    #[test]
    fn names_and_values_hold_nothing_that_could_end_a_header() {
        assert_eq!(
            FieldName::parse("X-User").map(String::from).as_deref(),
            Ok("x-user")
        );
        for wrong in ["", "a b", "a:b", "a\r\nb", "ä", "a\0"] {
            assert_eq!(FieldName::parse(wrong), Err(MatchError::Name), "{wrong:?}");
            assert_eq!(CookieName::parse(wrong), Err(MatchError::Name), "{wrong:?}");
        }
        assert_eq!(MethodName::parse("get"), Err(MatchError::Method));
        for wrong in [" a", "a ", "a\nb", "ä", "\t"] {
            assert_eq!(
                MatchValue::parse(wrong),
                Err(MatchError::Value),
                "{wrong:?}"
            );
        }
    }
}
