//! The secrets of services on disk: sealed, each with its name and revision, under a key that lies
//! elsewhere.
//!
//! `control/secrets.json` holds names, revisions and sealed values; `secrets.key` holds the key. Who
//! has only one of the two, as in a copy of the control centre's state, learns no value. It is no
//! protection from root, nor from the account that runs Mainstay: both can read both.
//!
//! It decides nothing about services and knows nobody who uses a secret. Every call reads the file
//! and, if it changes something, replaces it as a whole: write beside it, sync, rename, sync the
//! directory. Calls must not overlap. Start reading at [`Vault`], then `key`.

mod file;
mod key;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_ids::{SecretName, Timestamp};
use mainstay_model::secret::SecretText;
use ring::error::Unspecified;
use serde::{Deserialize, Serialize};

use key::Key;

pub use key::KEY_FILE;

/// The file of the sealed values, in the directory `control` of the state directory.
pub const SECRETS_FILE: &str = "secrets.json";

/// The form that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// How many secrets there may be: two for each of 500 services. The file is read and written whole.
pub const SECRETS_MAX: usize = 1000;

/// Where the secrets are. Nothing is kept in memory between two calls.
#[derive(Debug, Clone)]
pub struct Vault {
    directory: PathBuf,
    file: PathBuf,
    key: PathBuf,
}

/// What may be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: SecretName,
    /// How often it was set.
    pub revision: u64,
    /// When it was last set.
    pub changed: Timestamp,
}

/// Why a call did not succeed. No error holds a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {attempt} `{}`", path.display())]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A newer program wrote the file.
    #[error(
        "`{}` has format {found}, this program reads up to format {FORMAT}; start the newer \
         program that wrote it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The file is not as it was written.
    #[error("`{}` is damaged; put a good copy in its place", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it looks; never with a value, which is sealed.
        #[source]
        source: serde_json::Error,
    },
    /// There are sealed values, and no key.
    #[error(
        "the key `{}` is missing, and without it no sealed value can be opened: put it back, or \
         remove every secret and set it anew",
        path.display()
    )]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The key file does not hold a key.
    #[error("`{}` does not hold a key: put a good copy in its place", path.display())]
    KeyDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The values were sealed with another key.
    #[error(
        "`{}` is another key than the one with which the values were sealed: put that one back, or \
         remove every secret and set it anew",
        path.display()
    )]
    KeyWrong {
        /// The file.
        path: PathBuf,
    },
    /// The sealed value is not the one that was written for this name and revision.
    #[error(
        "the sealed value of the secret `{name}` was changed or belongs to another: set it anew"
    )]
    Forged {
        /// The secret.
        name: SecretName,
    },
    /// There is no room for another.
    #[error("there are {SECRETS_MAX} secrets already")]
    TooMany,
    /// The operating system gave no random bytes, or the value could not be sealed.
    #[error("cannot seal the value of the secret `{name}`")]
    Seal {
        /// The secret.
        name: SecretName,
    },
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    format: u32,
    /// Which key sealed the values; nothing can be learned of the key from it.
    key: Option<String>,
    secrets: BTreeMap<SecretName, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    revision: u64,
    changed: Timestamp,
    nonce: String,
    sealed: String,
}

impl Vault {
    /// That of a state directory.
    pub fn of(state: &Path) -> Self {
        let directory = state.join("control");
        Self {
            file: directory.join(SECRETS_FILE),
            directory,
            key: state.join(KEY_FILE),
        }
    }

    /// The secrets by name.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let secrets = self.read()?.secrets.into_iter();
        let listed = secrets.map(|(name, entry)| Listed {
            name,
            revision: entry.revision,
            changed: entry.changed,
        });
        Ok(listed.collect())
    }

    /// Sets a secret and gives its revision. `Ok`: it is there whatever happens next.
    pub fn set(&self, name: &SecretName, value: &SecretText, at: Timestamp) -> Result<u64, Error> {
        let mut content = self.read()?;
        if content.secrets.len() >= SECRETS_MAX && !content.secrets.contains_key(name) {
            return Err(Error::TooMany);
        }
        let key = self.key_for(&mut content)?;
        let last = content.secrets.get(name).map_or(0, |entry| entry.revision);
        let revision = last + 1;
        let sealed = key.seal(&about(name, revision), value);
        let (nonce, sealed) = sealed.map_err(|Unspecified| Error::Seal { name: name.clone() })?;
        let entry = Entry {
            revision,
            changed: at,
            nonce: hex(&nonce),
            sealed: hex(&sealed),
        };
        content.secrets.insert(name.clone(), entry);
        self.write(&content)?;
        Ok(revision)
    }

    /// Removes a secret; `false`: there was none. The key is not needed for it.
    pub fn remove(&self, name: &SecretName) -> Result<bool, Error> {
        let mut content = self.read()?;
        if content.secrets.remove(name).is_none() {
            return Ok(false);
        }
        self.write(&content)?;
        Ok(true)
    }

    /// The value of a secret; `None`: there is no such secret.
    pub fn open(&self, name: &SecretName) -> Result<Option<SecretText>, Error> {
        let content = self.read()?;
        let Some(entry) = content.secrets.get(name) else {
            return Ok(None);
        };
        let key = self.key_of(&content)?;
        let forged = || Error::Forged { name: name.clone() };
        let (Some(nonce), Some(sealed)) = (unhex(&entry.nonce), unhex(&entry.sealed)) else {
            return Err(forged());
        };
        let opened = key.open(&about(name, entry.revision), &nonce, sealed);
        opened.map(Some).ok_or_else(forged)
    }

    /// The key with which the values of `content` were sealed.
    fn key_of(&self, content: &Content) -> Result<Key, Error> {
        let path = || self.key.clone();
        let Some(key) = Key::load(&self.key)? else {
            return Err(Error::KeyMissing { path: path() });
        };
        match &content.key {
            Some(known) if *known != key.fingerprint() => Err(Error::KeyWrong { path: path() }),
            Some(_) | None => Ok(key),
        }
    }

    /// The key for another value. A new one is made only when no value needs an old one.
    fn key_for(&self, content: &mut Content) -> Result<Key, Error> {
        if !content.secrets.is_empty() {
            return self.key_of(content);
        }
        let key = match Key::load(&self.key)? {
            Some(key) => key,
            // Durable before the first value that needs it.
            None => Key::make(&self.key)?,
        };
        content.key = Some(key.fingerprint());
        Ok(key)
    }

    fn read(&self) -> Result<Content, Error> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let path = self.file.clone();
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Content {
                    format: FORMAT,
                    key: None,
                    secrets: BTreeMap::new(),
                });
            }
            Err(source) => {
                let attempt = "read";
                return Err(Error::File {
                    attempt,
                    path,
                    source,
                });
            }
        };
        let damaged = |path| move |source| Error::Damaged { path, source };
        let Format { format } = serde_json::from_slice(&text).map_err(damaged(path.clone()))?;
        if format > FORMAT {
            let found = format;
            return Err(Error::Newer { path, found });
        }
        serde_json::from_slice(&text).map_err(damaged(path))
    }

    fn write(&self, content: &Content) -> Result<(), Error> {
        let path = self.file.clone();
        let damaged = |source| Error::Damaged { path, source };
        let text = serde_json::to_vec_pretty(content).map_err(damaged)?;
        file::make_directory(&self.directory)?;
        file::replace(&self.file, &text)
    }
}

/// What a sealed value is bound to: moved to another name, or put back in the place of a newer one,
/// it does not open.
fn about(name: &SecretName, revision: u64) -> Vec<u8> {
    format!("mainstay secret 1\n{name}\n{revision}").into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("half a byte is a digit");
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits.map(digit).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests;
