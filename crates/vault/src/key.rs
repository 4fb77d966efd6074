//! The key, and sealing with it: ChaCha20-Poly1305 (RFC 8439) with a nonce drawn for each value.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mainstay_model::secret::SecretText;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{Error, file, hex, unhex};

/// The key's file in the state directory.
pub const KEY_FILE: &str = "secrets.key";

/// 256 bits.
const KEY_LEN: usize = 32;

/// How much of the digest tells keys apart: 64 bits, far more than anybody has keys.
const FINGERPRINT_LEN: usize = 8;

/// What seals and opens values.
pub(crate) struct Key {
    key: LessSafeKey,
    fingerprint: String,
}

impl Key {
    /// `None`: there is no such file.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |attempt| {
            move |source| Error::File {
                attempt,
                path: path.to_owned(),
                source,
            }
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::KeyDamaged {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(failed("read")(error)),
        };
        // Whoever copied it here may have let others read it.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("restrict"))?;
        let bytes = unhex(text.trim()).map(Zeroizing::new);
        let key = bytes.and_then(|bytes| Self::new(&bytes));
        key.map(Some).ok_or_else(|| Error::KeyDamaged {
            path: path.to_owned(),
        })
    }

    /// Draws a key and writes it down.
    pub(crate) fn make(path: &Path) -> Result<Self, Error> {
        let failed = || Error::File {
            attempt: "draw a key for",
            path: path.to_owned(),
            source: io::Error::other("the operating system gave no random bytes"),
        };
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        let drawn = SystemRandom::new().fill(bytes.as_mut());
        drawn.map_err(|Unspecified| failed())?;
        let mut text = Zeroizing::new(hex(bytes.as_ref()));
        text.push('\n');
        file::replace(path, text.as_bytes())?;
        Self::new(bytes.as_ref()).ok_or_else(failed)
    }

    fn new(bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?;
        // A digest of more than the key alone, so that it is of no use for anything else.
        let mut text = Zeroizing::new(b"mainstay secrets key 1\n".to_vec());
        text.extend_from_slice(bytes);
        let digest = digest(&SHA256, &text);
        Some(Self {
            key: LessSafeKey::new(key),
            fingerprint: hex(&digest.as_ref()[..FINGERPRINT_LEN]),
        })
    }

    /// Tells keys apart, and nothing about one.
    pub(crate) fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Seals a value; gives the nonce and what was sealed.
    pub(crate) fn seal(
        &self,
        about: &[u8],
        value: &SecretText,
    ) -> Result<([u8; NONCE_LEN], Vec<u8>), Unspecified> {
        // Drawn, not counted: after a copy was put back a counter would give one again. At one value
        // a second, two are alike after some billions of years.
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce)?;
        // Room for all from the start: a vector that grows leaves a copy behind.
        let mut buffer = Vec::with_capacity(value.expose().len() + CHACHA20_POLY1305.tag_len());
        buffer.extend_from_slice(value.expose().as_bytes());
        let nonce_once = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce_once, Aad::from(about), &mut buffer);
        if sealed.is_err() {
            buffer.zeroize();
        }
        sealed.map(|()| (nonce, buffer))
    }

    /// `None`: it was not sealed so, for this, with this key.
    pub(crate) fn open(&self, about: &[u8], nonce: &[u8], sealed: Vec<u8>) -> Option<SecretText> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut buffer = Zeroizing::new(sealed);
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(about), &mut buffer)
            .ok()?;
        let text = std::str::from_utf8(opened).ok()?;
        SecretText::new(text.to_owned()).ok()
    }
}
