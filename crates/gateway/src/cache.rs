//! The file `gateway/routes.json`: the last routing state, to start with when the control centre
//! is away. While one gateway takes over from another each has its own, by the name under which it
//! follows the routes.
//!
//! It outlives a kill of the gateway, not a loss of power: that ends the instances, too, so nothing
//! is synced. What matters is that it is never older than what was acknowledged.

use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};

use mainstay_model::Routing;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::limits::FORGET_TIME;
use crate::table::Serial;

/// The form of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    routing: &'a Routing,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Loaded {
    routing: Routing,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it is not what a gateway wrote")]
    Content(#[source] serde_json::Error),
    #[error("it has format {0}, and this version knows no newer than {FORMAT}")]
    Newer(u32),
}

/// The file, and the write that is under way.
pub(crate) struct RoutesFile {
    path: PathBuf,
    writing: Option<JoinHandle<(State, Outcome)>>,
    /// The newest state that is not being written yet.
    next: Option<State>,
    told: Told,
}

/// A routing state and the table that was made of it.
struct State {
    serial: Serial,
    routing: Routing,
}

/// What became of a write.
enum Outcome {
    Stored,
    /// It failed, and the file of an older state was removed.
    Removed(io::Error),
    /// It failed, and an older state may be in the file.
    Stale(io::Error),
}

/// What a successor will find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    NoRoutes,
    PerhapsRoutes,
}

/// Whether the present trouble has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Trouble,
}

impl RoutesFile {
    /// The file in the state directory of who follows the routes under this name.
    pub(crate) fn in_state(state: &Path, name: &str) -> io::Result<Self> {
        let path = path(state, name);
        fs::create_dir_all(path.parent().unwrap_or(state))?;
        Ok(Self {
            path,
            writing: None,
            next: None,
            told: Told::Nothing,
        })
    }

    /// What an earlier gateway stored; `None` if none did.
    pub(crate) fn load(&self) -> Result<Option<Routing>, LoadError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoadError::Read(error)),
        };
        let Format { format } = serde_json::from_slice(&text).map_err(LoadError::Content)?;
        if format > FORMAT {
            return Err(LoadError::Newer(format));
        }
        let Loaded { routing } = serde_json::from_slice(&text).map_err(LoadError::Content)?;
        Ok(Some(routing))
    }

    /// Writes `routing` in the background; while one is being written, only the newest waits.
    pub(crate) fn store(&mut self, serial: Serial, routing: Routing) {
        self.next = Some(State { serial, routing });
        self.go_on();
    }

    /// Begins to write what waits, if nothing is being written. Called once a second, too, for what
    /// failed before.
    pub(crate) fn go_on(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let Some(state) = self.next.take() else {
            return;
        };
        let path = self.path.clone();
        // Joined by `settled`, or by `forget`. In a thread of its own: the disk may hang.
        self.writing = Some(spawn_blocking(move || {
            let outcome = replace(&path, &state.routing);
            (state, outcome)
        }));
    }

    /// Waits for the end of the write under way; for ever if there is none. Gives the table than
    /// which a successor will find nothing older, if that is a new one. May be dropped and called
    /// again.
    pub(crate) async fn settled(&mut self) -> Option<Serial> {
        let Some(writing) = &mut self.writing else {
            return pending().await;
        };
        let written = writing.await;
        self.writing = None;
        // A panic has told itself.
        let (state, outcome) = written.ok()?;
        let serial = state.serial;
        let (settled, error) = match outcome {
            Outcome::Stored => {
                self.told = Told::Nothing;
                self.go_on();
                return Some(serial);
            }
            Outcome::Removed(error) => (Some(serial), error),
            Outcome::Stale(error) => (None, error),
        };
        if self.told == Told::Nothing {
            let path = self.path.display();
            let held_back = settled.is_none();
            tracing::warn!(%path, %error, held_back, "cannot store the routes; trying again each second");
            self.told = Told::Trouble;
        }
        match self.next {
            Some(_) => self.go_on(),
            None => self.next = Some(state),
        }
        settled
    }

    /// Removes the file, after the write that is under way.
    pub(crate) async fn forget(mut self) -> Left {
        let path = self.path.clone();
        let removed = async {
            if let Some(writing) = self.writing.take() {
                // Whatever it wrote is removed.
                writing.await.ok();
            }
            spawn_blocking(move || remove(&path)).await
        };
        match timeout(FORGET_TIME, removed).await {
            Ok(Ok(Ok(()))) => return Left::NoRoutes,
            Ok(Ok(Err(error))) => tracing::warn!(%error, "cannot remove the stored routes"),
            Ok(Err(_)) => tracing::warn!("the removal of the stored routes panicked"),
            Err(_) => tracing::warn!("the stored routes could not be removed in time"),
        }
        Left::PerhapsRoutes
    }
}

/// Removes what a gateway that has ended stored, which had this name: from then on, no successor
/// can begin with it.
pub fn forget_routes(state: &Path, name: &str) -> io::Result<()> {
    remove(&path(state, name))
}

fn path(state: &Path, name: &str) -> PathBuf {
    let file = match name.strip_prefix("gateway") {
        Some(rest) => format!("routes{rest}.json"),
        None => format!("routes-{name}.json"),
    };
    state.join("gateway").join(file)
}

/// Puts `routing` in the place of what is stored, or at least takes that away.
fn replace(path: &Path, routing: &Routing) -> Outcome {
    match write(path, routing) {
        Ok(()) => Outcome::Stored,
        Err(error) => match remove(path) {
            Ok(()) => Outcome::Removed(error),
            Err(_) => Outcome::Stale(error),
        },
    }
}

/// Whole or not at all, whenever this process is killed.
fn write(path: &Path, routing: &Routing) -> io::Result<()> {
    let stored = Stored {
        format: FORMAT,
        routing,
    };
    let next = next(path);
    fs::write(&next, serde_json::to_vec(&stored)?)?;
    fs::rename(&next, path)
}

fn remove(path: &Path) -> io::Result<()> {
    // A part of a state that did not fit; nobody reads it.
    fs::remove_file(next(path)).ok();
    match fs::remove_file(path) {
        // A file system that may not be written refuses before it looks.
        Err(error) if fs::exists(path).unwrap_or(true) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the next state is written.
fn next(path: &Path) -> PathBuf {
    path.with_extension("json.tmp")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::{Epoch, Generation};
    use mainstay_testkit::TempDir;

    fn states() -> impl Iterator<Item = (Serial, Routing)> {
        let first = (Serial::default(), Generation::first(Epoch(3)));
        let all = std::iter::successors(Some(first), |(serial, generation)| {
            Some((serial.next(), generation.next()))
        });
        all.map(|(serial, generation)| {
            let services = Vec::new();
            (
                serial,
                Routing {
                    generation,
                    services,
                },
            )
        })
    }

    #[tokio::test]
    async fn a_state_is_settled_when_it_or_a_newer_one_is_read_back() {
        let dir = TempDir::new("routes-file");
        let mut file = RoutesFile::in_state(dir.path(), "gateway").unwrap();
        assert!(file.load().unwrap().is_none());
        let mut newest = Serial::default();
        for (serial, routing) in states().take(20) {
            newest = serial;
            file.store(serial, routing);
        }
        loop {
            let settled = file.settled().await.expect("it is stored");
            let stored = file.load().unwrap().unwrap().generation;
            let of_settled = states().find(|(serial, _)| *serial == settled).unwrap().1;
            assert!(stored >= of_settled.generation);
            if settled == newest {
                break;
            }
        }
        assert_eq!(file.forget().await, Left::NoRoutes);
        let again = RoutesFile::in_state(dir.path(), "gateway").unwrap();
        assert!(again.load().unwrap().is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_stored_takes_the_older_file_away_and_is_settled_only_then() {
        let dir = TempDir::new("routes-file");
        let mut file = RoutesFile::in_state(dir.path(), "gateway").unwrap();
        let mut states = states();
        let (serial, routing) = states.next().unwrap();
        file.store(serial, routing);
        assert_eq!(file.settled().await, Some(serial));

        // In the way of the next write.
        fs::create_dir(next(&file.path)).unwrap();
        let (serial, routing) = states.next().unwrap();
        file.store(serial, routing);
        assert_eq!(file.settled().await, Some(serial));
        assert!(file.load().unwrap().is_none());

        // In the way of the removal, too.
        fs::create_dir(&file.path).unwrap();
        file.go_on();
        assert_eq!(file.settled().await, None);

        fs::remove_dir(&file.path).unwrap();
        fs::remove_dir(next(&file.path)).unwrap();
        file.go_on();
        assert_eq!(file.settled().await, Some(serial));
        assert!(file.load().unwrap().is_some());
    }

    #[test]
    fn each_name_has_its_own_file_and_what_the_dead_stored_can_be_forgotten() {
        let dir = TempDir::new("routes-file");
        for name in ["gateway", "gateway-2"] {
            let file = RoutesFile::in_state(dir.path(), name).unwrap();
            write(&file.path, &states().next().unwrap().1).unwrap();
        }
        forget_routes(dir.path(), "gateway-2").unwrap();
        forget_routes(dir.path(), "gateway-2").unwrap();
        let left = |name| RoutesFile::in_state(dir.path(), name).unwrap().load();
        assert!(left("gateway").unwrap().is_some());
        assert!(left("gateway-2").unwrap().is_none());
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused() {
        let dir = TempDir::new("routes-file");
        let file = RoutesFile::in_state(dir.path(), "gateway").unwrap();
        fs::write(&file.path, r#"{"format":2,"anything":[]}"#).unwrap();
        assert!(matches!(file.load(), Err(LoadError::Newer(2))));
        fs::write(&file.path, "{").unwrap();
        assert!(matches!(file.load(), Err(LoadError::Content(_))));
    }
}
