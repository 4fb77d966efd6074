//! The document: a header line with format, length and checksum, then the state as JSON.
//!
//! ```text
//! {"format":1,"len":1234,"crc32":3421780262}
//! {"epoch":7, ...}
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_journal::{Disk, HostDisk};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::checksum::crc32;

/// The file's name in its directory.
pub const STATE_FILE: &str = "state.json";

/// Where the next document is written before it takes the place of the last.
const NEXT_FILE: &str = "state.json.tmp";

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The document's first line.
#[derive(Serialize, Deserialize)]
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

/// One document on disk, replaced as a whole.
///
/// There is no `.old` beside it: the rename is atomic, so an older document could only be of use
/// after somebody damaged the file by hand, and to go back silently would forget the numbers that
/// make every published state newer than the one before.
#[derive(Debug)]
pub struct Store<D: Disk = HostDisk> {
    disk: D,
}

/// Why the state could not be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("cannot use state directory `{path}`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("state directory `{path}` is in use by another control centre; stop that one first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be read.
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
        "state file `{path}` has format {found}, this program reads up to format {FORMAT}; \
         start the newer program that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
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

/// Why the state could not be saved. The document on disk is whole: the one before, or, if the
/// last step failed, perhaps already the new one. A later save works as if nothing had happened.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It cannot be written as JSON.
    #[error("cannot write the state as JSON")]
    Encode(#[source] serde_json::Error),
    /// The disk refused.
    #[error("cannot save state file `{path}`: cannot {step}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        step: SaveStep,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// The steps of a save, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveStep {
    /// Making an empty file beside the old one.
    Create,
    /// Writing the document to it.
    Write,
    /// Making its content durable.
    Sync,
    /// Putting it in the place of the old one.
    Rename,
    /// Making that durable.
    SyncDirectory,
}

impl fmt::Display for SaveStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create the file beside it",
            Self::Write => "write",
            Self::Sync => "make the content durable",
            Self::Rename => "rename",
            Self::SyncDirectory => "make the rename durable",
        })
    }
}

impl Store {
    /// Opens the document in `directory`, which is made if it is missing. `None`: nothing was ever
    /// saved there.
    pub fn open<T: DeserializeOwned>(directory: &Path) -> Result<(Self, Option<T>), OpenError> {
        let path = directory.to_owned();
        let disk = match HostDisk::open(directory) {
            Ok(Some(disk)) => disk,
            Ok(None) => return Err(OpenError::InUse { path }),
            Err(source) => return Err(OpenError::Directory { path, source }),
        };
        Self::open_on(disk)
    }
}

impl<D: Disk> Store<D> {
    /// Opens the document on a disk of any kind.
    pub fn open_on<T: DeserializeOwned>(disk: D) -> Result<(Self, Option<T>), OpenError> {
        let path = disk.path().join(STATE_FILE);
        let state = match disk.read(STATE_FILE) {
            Ok(None) => None,
            Ok(Some(bytes)) => Some(decode(&bytes, path)?),
            Err(source) => return Err(OpenError::Read { path, source }),
        };
        Ok((Self { disk }, state))
    }

    /// Puts `state` in the place of the document. `Ok`: it is there whatever happens next.
    pub fn save<T: Serialize>(&mut self, state: &T) -> Result<(), SaveError> {
        let document = encode(state).map_err(SaveError::Encode)?;
        let refused = |step| {
            let path = self.disk.path().join(STATE_FILE);
            move |source| SaveError::Disk { path, step, source }
        };
        let disk = &self.disk;
        let file = disk.create(NEXT_FILE).map_err(refused(SaveStep::Create))?;
        disk.write_at(&file, 0, &document)
            .map_err(refused(SaveStep::Write))?;
        // Without this the rename could survive a power loss and the content not.
        disk.sync(&file).map_err(refused(SaveStep::Sync))?;
        disk.rename(NEXT_FILE, STATE_FILE)
            .map_err(refused(SaveStep::Rename))?;
        disk.sync_dir().map_err(refused(SaveStep::SyncDirectory))
    }
}

fn encode<T: Serialize>(state: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut content = serde_json::to_vec(state)?;
    content.push(b'\n');
    let header = Header {
        format: FORMAT,
        len: content.len(),
        crc32: crc32(&content),
    };
    let mut document = serde_json::to_vec(&header)?;
    document.push(b'\n');
    document.append(&mut content);
    Ok(document)
}

fn decode<T: DeserializeOwned>(document: &[u8], path: PathBuf) -> Result<T, OpenError> {
    let newline = document.iter().position(|byte| *byte == b'\n');
    let (line, content) = match newline {
        Some(at) => (&document[..at], &document[at + 1..]),
        None => (document, &[][..]),
    };
    let damaged = |path, damage| Err(OpenError::Damaged { path, damage });
    match serde_json::from_slice::<HeaderFormat>(line) {
        Ok(HeaderFormat { format: FORMAT }) => {}
        Ok(HeaderFormat { format }) if format > FORMAT => {
            let found = u64::from(format);
            return Err(OpenError::Newer { path, found });
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
    if header.crc32 != crc32(content) {
        return damaged(path, Damage::Checksum);
    }
    serde_json::from_slice(content)
        .or_else(|error| damaged(path, Damage::Content(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;
    use std::fs;

    fn opened(dir: &TempDir) -> Result<Option<Vec<String>>, OpenError> {
        Store::open(dir.path()).map(|(_store, state)| state)
    }

    #[test]
    fn what_was_saved_is_opened_again_and_only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = TempDir::new("store");
        let inner = dir.join("control");
        let (mut store, state) = Store::open::<Vec<String>>(&inner).expect("opens");
        assert_eq!(state, None);
        for state in [vec!["one"], vec!["one", "two"]] {
            store.save(&state).expect("saves");
        }
        drop(store);
        let (_store, state) = Store::open::<Vec<String>>(&inner).expect("opens");
        assert_eq!(state, Some(vec!["one".to_owned(), "two".to_owned()]));
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&inner.join(STATE_FILE)), 0o600);
    }

    #[test]
    fn a_file_that_was_cut_or_edited_anywhere_is_recognised_and_left_as_it_is() {
        let dir = TempDir::new("store");
        let (mut store, _) = Store::open::<Vec<String>>(dir.path()).expect("opens");
        store.save(&["orders", "payments"]).expect("saves");
        drop(store);
        let file = dir.join(STATE_FILE);
        let good = fs::read(&file).expect("is there");
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
        let dir = TempDir::new("store");
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

    #[test]
    fn a_second_control_centre_on_the_same_directory_is_refused() {
        let dir = TempDir::new("store");
        let first = Store::open::<Vec<String>>(dir.path()).expect("opens");
        assert!(matches!(opened(&dir), Err(OpenError::InUse { .. })));
        drop(first);
        assert!(opened(&dir).is_ok());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = TempDir::new("store");
        fs::write(dir.join("file"), "in the way").expect("writes");
        let error = Store::open::<Vec<String>>(&dir.join("file/control")).expect_err("no way");
        assert!(matches!(&error, OpenError::Directory { .. }), "{error}");
        assert!(error.to_string().contains("file/control"), "{error}");
    }
}
