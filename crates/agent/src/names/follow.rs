//! Follows the directory, and keeps the newest to begin with while the control centre is away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_api::client::{self, Client};
use mainstay_model::Directory;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two tries to reach a control centre that is away.
const RETRY: Duration = Duration::from_millis(200);

/// The form of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    directory: &'a Directory,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Loaded {
    directory: Directory,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it is not what an agent wrote")]
    Content(#[source] serde_json::Error),
    #[error("it has format {0}, and this version knows no newer than {FORMAT}")]
    Newer(u32),
}

/// Follows the control centre's directory until `stop`, beginning with the one that is stored in the
/// state directory.
pub(crate) async fn follow(
    client: Client,
    state: PathBuf,
    directories: watch::Sender<Option<Arc<Directory>>>,
    stop: CancellationToken,
) {
    let path = state.join("names").join("directory.json");
    match load(&path) {
        Ok(stored) => {
            directories.send_replace(stored.map(Arc::new));
        }
        Err(error) => {
            let (path, error) = (path.display(), crate::chain(&error));
            tracing::error!(%path, error, "of no use; names are known once the control centre is reached");
        }
    }
    let stored = directories.subscribe();
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch(&client, &directories) => {}
        () = store(&path, stored) => {}
    }
}

async fn watch(client: &Client, directories: &watch::Sender<Option<Arc<Directory>>>) {
    let mut told = Told::Nothing;
    loop {
        if let Err(error) = watch_once(client, directories, &mut told).await
            && told != Told::Trouble
        {
            let error = crate::chain(&error);
            tracing::warn!(
                error,
                "no directory comes; names are answered by the last one"
            );
            told = Told::Trouble;
        }
        sleep(RETRY).await;
    }
}

/// What has been told of the control centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    There,
    Trouble,
}

/// Until the watch breaks. The client has the deadlines.
async fn watch_once(
    client: &Client,
    directories: &watch::Sender<Option<Arc<Directory>>>,
    told: &mut Told,
) -> Result<(), client::Error> {
    let mut watch = client.watch::<Directory>("/v1/watch/directory").await?;
    if *told != Told::There {
        tracing::info!("following the directory");
        *told = Told::There;
    }
    while let Some(directory) = watch.next().await? {
        directories.send_replace(Some(Arc::new(directory)));
    }
    Ok(())
}

/// Writes each newest one down; those in between are skipped. Not synced: a loss of power ends the
/// instances, too.
async fn store(path: &Path, mut directories: watch::Receiver<Option<Arc<Directory>>>) {
    while directories.changed().await.is_ok() {
        let Some(directory) = directories.borrow_and_update().clone() else {
            continue;
        };
        let to = path.to_owned();
        let written = tokio::task::spawn_blocking(move || save(&to, &directory)).await;
        let error = match written {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let path = path.display();
        tracing::warn!(%path, error, "cannot be written; the next agent waits for the control centre");
    }
}

fn save(path: &Path, directory: &Directory) -> io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    let next = path.with_extension("json.tmp");
    let stored = Stored {
        format: FORMAT,
        directory,
    };
    std::fs::write(&next, serde_json::to_vec(&stored)?)?;
    std::fs::rename(next, path)
}

fn load(path: &Path) -> Result<Option<Directory>, LoadError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LoadError::Read(error)),
    };
    let Format { format } = serde_json::from_slice(&text).map_err(LoadError::Content)?;
    if format > FORMAT {
        return Err(LoadError::Newer(format));
    }
    let Loaded { directory } = serde_json::from_slice(&text).map_err(LoadError::Content)?;
    Ok(Some(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::{Epoch, Generation};
    use mainstay_testkit::TempDir;

    #[test]
    fn what_was_stored_is_loaded_and_a_newer_or_damaged_file_is_told() {
        let dir = TempDir::new("directory");
        let path = dir.join("names").join("directory.json");
        assert!(matches!(load(&path), Ok(None)));
        let directory = Directory {
            generation: Generation::first(Epoch(3)),
            services: Vec::new(),
        };
        save(&path, &directory).unwrap();
        assert_eq!(load(&path).unwrap(), Some(directory));
        std::fs::write(&path, "{\"format\":2}").unwrap();
        assert!(matches!(load(&path), Err(LoadError::Newer(2))));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(load(&path), Err(LoadError::Content(_))));
    }
}
