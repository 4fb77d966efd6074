//! A value that nobody is to see by accident.

use alloc::string::String;
use core::fmt;

use zeroize::Zeroizing;

/// The longest value in bytes. It is handed over in the environment, where Linux takes 128 KiB, and
/// keys and certificates are far below this.
pub const SECRET_LEN_MAX: usize = 32 * 1024;

/// The value of a secret. Its memory is overwritten when it is dropped, and `Debug` does not show it.
/// There is no `Display`: whoever wants the text says so by [`SecretText::expose`].
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct SecretText(#[cfg_attr(feature = "schema", schemars(with = "String"))] Zeroizing<String>);

/// Why a text cannot be a secret. The text itself is never named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretTextError {
    /// Nothing was given, which is surely a mistake.
    #[error("the value is empty")]
    Empty,
    /// It is longer than [`SECRET_LEN_MAX`].
    #[error("the value has {len} bytes; at most {SECRET_LEN_MAX} can be handed to a program")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A NUL byte cannot be handed to a program.
    #[error("the value holds a NUL character, which cannot be handed to a program")]
    Nul,
}

impl SecretText {
    /// Takes a value.
    pub fn new(text: String) -> Result<Self, SecretTextError> {
        // From here on it is overwritten also when it is refused.
        let text = Zeroizing::new(text);
        if text.is_empty() {
            return Err(SecretTextError::Empty);
        }
        if text.len() > SECRET_LEN_MAX {
            return Err(SecretTextError::TooLong { len: text.len() });
        }
        if text.contains('\0') {
            return Err(SecretTextError::Nul);
        }
        Ok(Self(text))
    }

    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl TryFrom<String> for SecretText {
    type Error = SecretTextError;
    fn try_from(text: String) -> Result<Self, SecretTextError> {
        Self::new(text)
    }
}

impl From<SecretText> for String {
    fn from(secret: SecretText) -> Self {
        secret.expose().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_value_is_not_shown_and_what_cannot_be_handed_over_is_refused_without_it() {
        let secret = SecretText::new("hunter2".into()).expect("legal");
        assert_eq!(format!("{secret:?}"), "SecretText(..)");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(SecretText::new(String::new()), Err(SecretTextError::Empty));
        let nul = SecretText::new("hunter2\0".into());
        assert_eq!(nul, Err(SecretTextError::Nul));
        let long = "x".repeat(SECRET_LEN_MAX + 1);
        let refused = SecretText::new(long).expect_err("too long");
        assert!(!format!("{refused} {refused:?}").contains("xx"));
    }
}
