//! Passwords, hashed: our own slowly, and those that come from RabbitMQ's definitions as it hashes them.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

/// Rounds of a hash that is made now: some 25 ms with the instructions for SHA-256 of today's processors. It stands in each
/// hash, so that it may grow.
const ROUNDS: NonZeroU32 = NonZeroU32::new(150_000).expect("not zero");
/// Rounds that a hash from elsewhere may ask for: some seconds.
const ROUNDS_MAX: u32 = 10_000_000;
/// Bytes of our salts.
const SALT_LEN: usize = 16;
/// Bytes of RabbitMQ's.
const RABBIT_SALT_LEN: usize = 4;
/// RabbitMQ's name of its hash since 3.6.
pub(crate) const RABBIT_SHA256: &str = "rabbit_password_hashing_sha256";
/// And of the longer one.
pub(crate) const RABBIT_SHA512: &str = "rabbit_password_hashing_sha512";

/// A hash of a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "kebab-case")]
pub(crate) enum PasswordHash {
    /// PBKDF2 with HMAC-SHA-256 (RFC 8018).
    Pbkdf2 {
        rounds: NonZeroU32,
        salt: String,
        hash: String,
    },
    /// Four bytes of salt, and SHA-256 of them and the password (RabbitMQ).
    RabbitSha256 { salted: String },
    /// The same with SHA-512.
    RabbitSha512 { salted: String },
}

/// A hash cannot be used, or none can be made.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The kernel gives no randomness.
    #[error("there is no randomness for a salt")]
    NoRandomness,
    /// It is no hash of this kind.
    #[error("the hash of a password is not base64 of a {0} with four bytes of salt")]
    Form(&'static str),
    /// An algorithm that is not known.
    #[error(
        "the hash of a password was made by `{0}`, which is not known; known are {RABBIT_SHA256} and {RABBIT_SHA512}"
    )]
    Algorithm(String),
}

impl PasswordHash {
    /// Hashes a password slowly: not on a thread on which others wait.
    pub(crate) fn of(password: &[u8]) -> Result<Self, PasswordError> {
        let mut salt = [0; SALT_LEN];
        let random = SystemRandom::new();
        random
            .fill(&mut salt)
            .map_err(|_| PasswordError::NoRandomness)?;
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(PBKDF2_HMAC_SHA256, ROUNDS, &salt, password, &mut hash);
        Ok(Self::Pbkdf2 {
            rounds: ROUNDS,
            salt: STANDARD.encode(salt),
            hash: STANDARD.encode(hash),
        })
    }

    /// A hash that costs as much as any and is that of no password.
    pub(crate) fn of_nobody() -> Result<Self, PasswordError> {
        let mut salt_and_hash = [0; SALT_LEN + digest::SHA256_OUTPUT_LEN];
        let random = SystemRandom::new();
        random
            .fill(&mut salt_and_hash)
            .map_err(|_| PasswordError::NoRandomness)?;
        let (salt, hash) = salt_and_hash.split_at(SALT_LEN);
        Ok(Self::Pbkdf2 {
            rounds: ROUNDS,
            salt: STANDARD.encode(salt),
            hash: STANDARD.encode(hash),
        })
    }

    /// Takes over what RabbitMQ's definitions have.
    pub(crate) fn of_rabbit(algorithm: &str, hash: &str) -> Result<Self, PasswordError> {
        let salted = hash.to_owned();
        let (of, len, name) = match algorithm {
            RABBIT_SHA256 => (
                Self::RabbitSha256 { salted },
                digest::SHA256_OUTPUT_LEN,
                "SHA-256",
            ),
            RABBIT_SHA512 => (
                Self::RabbitSha512 { salted },
                digest::SHA512_OUTPUT_LEN,
                "SHA-512",
            ),
            other => return Err(PasswordError::Algorithm(other.to_owned())),
        };
        let bytes = STANDARD
            .decode(hash)
            .map_err(|_| PasswordError::Form(name))?;
        if bytes.len() != RABBIT_SALT_LEN + len {
            return Err(PasswordError::Form(name));
        }
        Ok(of)
    }

    /// Its name and form in RabbitMQ's definitions; `None` for one that RabbitMQ does not know.
    pub(crate) fn as_rabbit(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Pbkdf2 { .. } => None,
            Self::RabbitSha256 { salted } => Some((RABBIT_SHA256, salted)),
            Self::RabbitSha512 { salted } => Some((RABBIT_SHA512, salted)),
        }
    }

    /// Whether it is that of this password; slow.
    pub(crate) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Pbkdf2 { rounds, salt, hash } => {
                let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else {
                    return false;
                };
                rounds.get() <= ROUNDS_MAX
                    && pbkdf2::verify(PBKDF2_HMAC_SHA256, *rounds, &salt, password, &hash).is_ok()
            }
            Self::RabbitSha256 { salted } => is_salted(&digest::SHA256, salted, password),
            Self::RabbitSha512 { salted } => is_salted(&digest::SHA512, salted, password),
        }
    }
}

fn is_salted(algorithm: &'static digest::Algorithm, salted: &str, password: &[u8]) -> bool {
    let Ok(salted) = STANDARD.decode(salted) else {
        return false;
    };
    let Some((salt, hash)) = salted.split_at_checked(RABBIT_SALT_LEN) else {
        return false;
    };
    let mut context = digest::Context::new(algorithm);
    context.update(salt);
    context.update(password);
    let made = context.finish();
    let made = made.as_ref();
    // A comparison that takes as long wherever it fails.
    let differ = made
        .iter()
        .zip(hash)
        .fold(0, |differ, (one, other)| differ | (one ^ other));
    made.len() == hash.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_its_password_alone() {
        let hash = PasswordHash::of(b"secret").expect("randomness");
        assert!(hash.is_of(b"secret"));
        assert!(!hash.is_of(b"Secret"));
        assert!(!hash.is_of(b""));
        let again = PasswordHash::of(b"secret").expect("randomness");
        assert_ne!(hash, again, "each has a salt of its own");
    }

    #[test]
    fn what_rabbitmq_hashed_is_known() {
        // `rabbitmqctl hash_password test12` of its documentation.
        let hash = PasswordHash::of_rabbit(
            RABBIT_SHA256,
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
        );
        let hash = hash.expect("a hash of RabbitMQ");
        assert!(hash.is_of(b"test12"));
        assert!(!hash.is_of(b"test13"));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        assert!(matches!(
            PasswordHash::of_rabbit(RABBIT_SHA256, "Zm9v"),
            Err(PasswordError::Form(_))
        ));
        assert!(matches!(
            PasswordHash::of_rabbit("md5", "Zm9v"),
            Err(PasswordError::Algorithm(_))
        ));
    }
}
