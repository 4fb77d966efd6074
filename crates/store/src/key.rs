//! Keys and ranges of them.

use std::fmt;

/// The longest key: a path with two names of the longest kind and room to spare.
pub const KEY_LEN_MAX: usize = 512;

/// The name of one value: 1 to [`KEY_LEN_MAX`] bytes of text, ordered by bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to {KEY_LEN_MAX} bytes, this one has {len}")]
pub struct KeyError {
    len: usize,
}

impl Key {
    /// The key that `text` is.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        match text.len() {
            1..=KEY_LEN_MAX => Ok(Self(text)),
            len => Err(KeyError { len }),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows `prefix`, if the key begins so.
    pub fn behind(&self, prefix: &str) -> Option<&str> {
        self.0.strip_prefix(prefix)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Keys from one, included, to another, not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub(crate) from: Vec<u8>,
    /// `None`: to the last key.
    pub(crate) to: Option<Vec<u8>>,
}

impl KeyRange {
    /// This key alone.
    pub fn one(key: &Key) -> Self {
        let mut to = key.0.clone().into_bytes();
        to.push(0);
        Self {
            from: key.0.clone().into_bytes(),
            to: Some(to),
        }
    }

    /// All keys that begin with `prefix`; with an empty one, all.
    pub fn prefix(prefix: &str) -> Self {
        let from = prefix.as_bytes().to_vec();
        let mut to = from.clone();
        // The first text behind all of them: the last byte that can grow does.
        while to.last() == Some(&u8::MAX) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        let to = (!to.is_empty()).then_some(to);
        Self { from, to }
    }

    /// The same range without what is up to `key`, for the next page.
    #[must_use]
    pub fn behind(&self, key: &Key) -> Self {
        let mut from = key.0.clone().into_bytes();
        from.push(0);
        Self {
            from,
            to: self.to.clone(),
        }
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &Key) -> bool {
        let bytes = key.0.as_bytes();
        bytes >= self.from.as_slice() && self.to.as_ref().is_none_or(|to| bytes < to.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect("legal")
    }

    #[test]
    fn a_prefix_holds_what_begins_so_and_nothing_else() {
        let range = KeyRange::prefix("/a/");
        for (text, inside) in [
            ("/a/", true),
            ("/a/\u{10ffff}", true),
            ("/a", false),
            ("/a0", false),
        ] {
            assert_eq!(range.contains(&key(text)), inside, "{text}");
        }
        assert!(KeyRange::prefix("").contains(&key("\u{10ffff}")));
        let one = KeyRange::one(&key("a"));
        assert!(one.contains(&key("a")) && !one.contains(&key("a\0")));
        assert!(!range.behind(&key("/a/b")).contains(&key("/a/b")));
    }

    #[test]
    fn a_key_is_neither_empty_nor_long() {
        assert!(Key::new("").is_err());
        assert!(Key::new("x".repeat(KEY_LEN_MAX)).is_ok());
        assert!(Key::new("x".repeat(KEY_LEN_MAX + 1)).is_err());
    }
}
