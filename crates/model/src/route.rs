//! Which requests from outside belong to a service.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

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
text_conversions!(HostName, PathPrefix);

/// The requests that a service answers. Of several matches the one with a host wins over the one
/// without, then the longer path.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HttpMatch {
    /// The host name asked for; `None` is any.
    pub host: Option<HostName>,
    /// Where the path begins.
    pub path: PathPrefix,
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
}
