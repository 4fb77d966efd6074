//! The file `gateway/routes.json`: the last routing state, to start with when the control centre
//! is away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mainstay_model::Routing;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

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
    writing: Option<JoinHandle<()>>,
    /// The newest state that is not being written yet.
    next: Option<Routing>,
}

impl RoutesFile {
    /// The file in the state directory.
    pub(crate) fn in_state(state: &Path) -> io::Result<Self> {
        let directory = state.join("gateway");
        fs::create_dir_all(&directory)?;
        Ok(Self {
            path: directory.join("routes.json"),
            writing: None,
            next: None,
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
    pub(crate) fn store(&mut self, routing: Routing) {
        self.next = Some(routing);
        self.begin();
    }

    fn begin(&mut self) {
        if self
            .writing
            .as_ref()
            .is_some_and(|writing| !writing.is_finished())
        {
            return;
        }
        let Some(routing) = self.next.take() else {
            return;
        };
        let path = self.path.clone();
        // Joined by `finish`; a failure costs only the start without a control centre.
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &routing) {
                tracing::warn!(path = %path.display(), %error, "cannot store the routes");
            }
        }));
    }

    /// Begins to write what waits, if nothing is being written. Called once a second.
    pub(crate) fn go_on(&mut self) {
        self.begin();
    }

    /// Waits until the newest state is written.
    pub(crate) async fn finish(mut self) {
        while let Some(writing) = self.writing.take() {
            // A panic has told itself.
            writing.await.ok();
            self.begin();
        }
    }
}

fn write(path: &Path, routing: &Routing) -> io::Result<()> {
    let stored = Stored {
        format: FORMAT,
        routing,
    };
    let temporary = path.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(&stored)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::{Epoch, Generation};
    use mainstay_testkit::TempDir;

    #[tokio::test]
    async fn the_newest_routes_are_read_back() {
        let dir = TempDir::new("routes-file");
        let mut file = RoutesFile::in_state(dir.path()).unwrap();
        assert!(file.load().unwrap().is_none());
        let mut generation = Generation::first(Epoch(3));
        for _ in 0..20 {
            generation = generation.next();
            file.store(Routing {
                generation,
                services: Vec::new(),
            });
        }
        file.finish().await;
        let again = RoutesFile::in_state(dir.path()).unwrap();
        let loaded = again.load().unwrap().unwrap();
        assert_eq!(loaded.generation, generation);
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused() {
        let dir = TempDir::new("routes-file");
        let file = RoutesFile::in_state(dir.path()).unwrap();
        fs::write(&file.path, r#"{"format":2,"anything":[]}"#).unwrap();
        assert!(matches!(file.load(), Err(LoadError::Newer(2))));
        fs::write(&file.path, "{").unwrap();
        assert!(matches!(file.load(), Err(LoadError::Content(_))));
    }
}
