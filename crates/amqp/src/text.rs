//! Strings of the wire.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use crate::limits::SHORT_STRING_MAX;

/// At most 255 bytes, UTF-8 as a rule (RabbitMQ asks for it in methods, not in tables). A part of what was received,
/// until [`ShortString::compact`] makes it a copy.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortString(Bytes);

impl ShortString {
    /// A literal of at most 255 bytes.
    pub const fn literal(text: &'static str) -> Self {
        assert!(text.len() <= SHORT_STRING_MAX, "longer than a short string");
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// `None` for more than 255 bytes.
    pub fn new(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= SHORT_STRING_MAX).then_some(Self(bytes))
    }

    /// So much of the text as goes in, the rest shown by three dots, as RabbitMQ does with long reply texts.
    pub fn cut(text: &str) -> Self {
        if text.len() <= SHORT_STRING_MAX {
            return Self(Bytes::copy_from_slice(text.as_bytes()));
        }
        let mut end = SHORT_STRING_MAX - 3;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut shown = String::from(&text[..end]);
        shown.push_str("...");
        Self(Bytes::from(shown.into_bytes()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// As text; what is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether nothing stands in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy that keeps nothing else of what was received in memory.
    #[must_use]
    pub fn compact(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Without line ends, which RabbitMQ strips from names.
    #[must_use]
    pub fn without_line_ends(&self) -> Self {
        if !self.0.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return self.clone();
        }
        let kept = self.0.iter().filter(|byte| !matches!(byte, b'\r' | b'\n'));
        Self(kept.copied().collect())
    }
}

impl From<&str> for ShortString {
    fn from(text: &str) -> Self {
        Self::cut(text)
    }
}

impl PartialEq<str> for ShortString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ShortString {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text(), f)
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}
