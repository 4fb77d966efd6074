//! The bearer token of the loopback port: whoever may read the file may change services.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mainstay_kernel::durable;

/// The file's name in the state directory.
pub const TOKEN_FILE: &str = "token";

/// 256 bits: not to be guessed.
const SECRET_LEN: usize = 32;

/// A secret as text, compared in constant time and never shown.
#[derive(Clone)]
pub(crate) struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} token file `{path}`")]
pub struct TokenError {
    attempt: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Token {
    /// Reads the token of `directory`; makes one if there is none or the file was torn.
    pub(crate) fn load_or_make(directory: &Path) -> Result<Self, TokenError> {
        let path = directory.join(TOKEN_FILE);
        let error = |attempt| {
            let path = path.clone();
            move |source| TokenError {
                attempt,
                path,
                source,
            }
        };
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().len() == 2 * SECRET_LEN => {
                fs::set_permissions(&path, Permissions::from_mode(0o600))
                    .map_err(error("restrict"))?;
                return Ok(Self(text.trim().to_owned()));
            }
            Ok(_) => {}
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(error("read")(source)),
        }
        let token = Self(draw().map_err(error("draw a secret for"))?);
        token.write(&path).map_err(error("write"))?;
        Ok(token)
    }

    /// Whether `given` is this token; takes as long for a near miss as for a far one.
    pub(crate) fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        if own.len() != given.len() {
            return false;
        }
        let differing = own.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        durable::replace(path, format!("{}\n", self.0).as_bytes(), 0o600)
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn draw() -> io::Result<String> {
    let secret = random::<SECRET_LEN>()?;
    let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("half a byte is a digit");
    let digits = secret.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    Ok(digits.map(digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn a_token_is_made_once_for_its_owner_alone_and_made_anew_when_torn() {
        let dir = TempDir::new("token");
        let made = Token::load_or_make(dir.path()).expect("makes one");
        let again = Token::load_or_make(dir.path()).expect("reads it");
        assert!(made.is(&again.0));
        let path = dir.join(TOKEN_FILE);
        let permissions = fs::metadata(&path).expect("is there").permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);

        fs::write(&path, &made.0[..20]).expect("writes");
        let other = Token::load_or_make(dir.path()).expect("makes another");
        assert_eq!(other.0.len(), 64);
        assert!(!other.is(&made.0));
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token("ab".repeat(SECRET_LEN));
        assert!(token.is(&"ab".repeat(SECRET_LEN)));
        for wrong in [
            "",
            "ab",
            &"ba".repeat(SECRET_LEN),
            &"ab".repeat(SECRET_LEN + 1),
        ] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }
}
