//! Names that users type: services and nodes.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// The longest name: a DNS label (RFC 1035, 2.3.4), because a service's name becomes one.
pub const NAME_LEN_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`NAME_LEN_MAX`] characters.
    #[error("a name has at most {NAME_LEN_MAX} characters, this one has {len}")]
    TooLong {
        /// Length of the text in bytes.
        len: usize,
    },
    /// The first character is not a letter from a to z.
    #[error("a name starts with a letter from a to z, not with `{found}`")]
    Start {
        /// The character that was found.
        found: char,
    },
    /// A character that a DNS label may not hold.
    #[error("a name holds only a-z, 0-9 and `-`, not `{found}`")]
    Character {
        /// The character that was found.
        found: char,
    },
    /// The last character is a hyphen.
    #[error("a name must not end with `-`")]
    End,
}

/// Checks a DNS label in lower case that starts with a letter.
fn check_label(text: &str) -> Result<(), NameError> {
    let Some(first) = text.chars().next() else {
        return Err(NameError::Empty);
    };
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong { len: text.len() });
    }
    if !first.is_ascii_lowercase() {
        return Err(NameError::Start { found: first });
    }
    let legal = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    if let Some(found) = text.chars().find(|c| !legal(c)) {
        return Err(NameError::Character { found });
    }
    if text.ends_with('-') {
        Err(NameError::End)
    } else {
        Ok(())
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` and takes it as a name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_label(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_label(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

name_type! {
    /// The name of a service: a DNS label, since it is also a host name.
    ServiceName
}
name_type! {
    /// The name of a machine.
    NodeName
}
name_type! {
    /// The name of a secret, under which services refer to its value.
    SecretName
}
name_type! {
    /// The name of a listener for servers that Mainstay did not start.
    ListenName
}
name_type! {
    /// The name of a floating address.
    VipName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        for good in ["a", "orders", "orders-2", "a1-b2"] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        let bad = [
            ("", NameError::Empty),
            ("Orders", NameError::Start { found: 'O' }),
            ("2orders", NameError::Start { found: '2' }),
            ("or_ders", NameError::Character { found: '_' }),
            ("orders-", NameError::End),
        ];
        for (text, error) in bad {
            assert_eq!(ServiceName::parse(text), Err(error), "{text}");
        }
        let long = "a".repeat(64);
        assert_eq!(
            ServiceName::parse(&long),
            Err(NameError::TooLong { len: 64 })
        );
    }
}
