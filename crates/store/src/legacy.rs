//! The state as it was kept before there was a database: a header line with format, length and
//! checksum, then the state as JSON. It is read once and taken over.
//!
//! ```text
//! {"format":1,"len":1234,"crc32":3421780262}
//! {"epoch":7, ...}
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, de::DeserializeOwned};

use crate::checksum::crc32;

/// The file's name in its directory.
pub const STATE_FILE: &str = "state.json";

/// The file's name once a database holds what it said.
pub const TAKEN_OVER_FILE: &str = "state.json.taken-over";

/// The only format that there was.
pub const FORMAT: u32 = 1;

/// The document's first line.
#[derive(Deserialize)]
struct Header {
    format: u32,
    len: usize,
    crc32: u32,
}

/// The one thing that every format's header says.
#[derive(Deserialize)]
struct HeaderFormat {
    format: u32,
}

/// Why a state file could not be taken over. It was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// It cannot be read.
    #[error("cannot read state file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "state file `{path}` has format {found}, this program takes over format {FORMAT}; \
         start the program that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not as it was written.
    #[error(
        "state file `{path}` is damaged: {damage}; it was left as it is. Put a good copy in its \
         place, or, once no instance of it runs, move it away to begin with no services"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// It cannot get its new name.
    #[error("cannot rename state file `{path}`, which was taken over, to `{TAKEN_OVER_FILE}`")]
    Rename {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The first line is not a header.
    #[error("its first line is not a header")]
    Header,
    /// It is shorter or longer than its header says.
    #[error("it holds {found} bytes behind its header, which says {said}")]
    Length {
        /// The bytes that there are.
        found: usize,
        /// The bytes that there should be.
        said: usize,
    },
    /// Its content was changed.
    #[error("its checksum does not match")]
    Checksum,
    /// It is whole, and yet not a state.
    #[error("it does not describe a state: {0}")]
    Content(String),
}

/// The state in `directory`'s state file; `None`: there is no such file.
pub fn read<T: DeserializeOwned>(directory: &Path) -> Result<Option<T>, LegacyError> {
    let path = directory.join(STATE_FILE);
    match fs::read(&path) {
        Ok(document) => decode(&document, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LegacyError::Read { path, source }),
    }
}

/// Sets the state file in `directory` aside, durably, once a database holds what it said.
pub fn set_aside(directory: &Path) -> Result<(), LegacyError> {
    let path = directory.join(STATE_FILE);
    let renamed = fs::rename(&path, directory.join(TAKEN_OVER_FILE))
        .and_then(|()| fs::File::open(directory)?.sync_all());
    renamed.map_err(|source| LegacyError::Rename { path, source })
}

fn decode<T: DeserializeOwned>(document: &[u8], path: PathBuf) -> Result<T, LegacyError> {
    let newline = document.iter().position(|byte| *byte == b'\n');
    let (line, content) = match newline {
        Some(at) => (&document[..at], &document[at + 1..]),
        None => (document, &[][..]),
    };
    let damaged = |path, damage| Err(LegacyError::Damaged { path, damage });
    match serde_json::from_slice::<HeaderFormat>(line) {
        Ok(HeaderFormat { format: FORMAT }) => {}
        Ok(HeaderFormat { format: found }) if found > FORMAT => {
            return Err(LegacyError::Newer { path, found });
        }
        Ok(_) | Err(_) => return damaged(path, Damage::Header),
    }
    let Ok(header) = serde_json::from_slice::<Header>(line) else {
        return damaged(path, Damage::Header);
    };
    if header.len != content.len() {
        let (found, said) = (content.len(), header.len);
        return damaged(path, Damage::Length { found, said });
    }
    if header.format != FORMAT || header.crc32 != crc32(content) {
        return damaged(path, Damage::Checksum);
    }
    serde_json::from_slice(content)
        .or_else(|error| damaged(path, Damage::Content(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn opened(dir: &TempDir) -> Result<Option<Vec<String>>, LegacyError> {
        read(dir.path())
    }

    fn document(content: &str) -> String {
        let (len, crc32) = (content.len(), crc32(content.as_bytes()));
        format!("{{\"format\":1,\"len\":{len},\"crc32\":{crc32}}}\n{content}")
    }

    #[test]
    fn a_state_file_is_read_and_set_aside() {
        let dir = TempDir::new("legacy");
        assert_eq!(opened(&dir).expect("is read"), None);
        let good = document("[\"orders\",\"payments\"]\n");
        fs::write(dir.join(STATE_FILE), &good).expect("writes");
        let state = opened(&dir).expect("is read");
        assert_eq!(
            state,
            Some(vec!["orders".to_owned(), "payments".to_owned()])
        );
        set_aside(dir.path()).expect("is set aside");
        assert_eq!(opened(&dir).expect("is read"), None);
        let kept = fs::read_to_string(dir.join(TAKEN_OVER_FILE)).expect("is kept");
        assert_eq!(kept, good);
    }

    #[test]
    fn a_file_that_was_cut_or_edited_anywhere_is_recognised_and_left_as_it_is() {
        let dir = TempDir::new("legacy");
        let file = dir.join(STATE_FILE);
        let good = document("[\"orders\",\"payments\"]\n").into_bytes();
        let cuts = (0..good.len()).map(|len| good[..len].to_vec());
        let edits = (0..good.len()).map(|at| {
            let mut edited = good.clone();
            edited[at] ^= 0x01;
            edited
        });
        for bad in cuts.chain(edits) {
            fs::write(&file, &bad).expect("writes");
            let seen = opened(&dir);
            let shown = String::from_utf8_lossy(&bad);
            assert!(seen.is_err(), "{shown} was read as {seen:?}");
            assert_eq!(fs::read(&file).expect("is there"), bad);
        }
    }

    #[test]
    fn a_newer_format_is_refused_with_the_file_and_both_versions() {
        let dir = TempDir::new("legacy");
        let content = "{\"format\":7,\"anything\":\"else\"}\nbinary, perhaps";
        fs::write(dir.join(STATE_FILE), content).expect("writes");
        let message = opened(&dir).expect_err("is newer").to_string();
        for word in [
            dir.join(STATE_FILE).to_str().expect("text"),
            "format 7",
            "format 1",
        ] {
            assert!(message.contains(word), "{message}");
        }
    }
}
