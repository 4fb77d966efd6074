//! What operators set of servers, over a restart of the gateway: the file `gateway/listeners.json`, as
//! `server-state-file` of HAProxy. It is written before who asked is answered, so that it holds over an
//! upgrade, a crash and a loss of power.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_control::listen::Wanted;
use mainstay_ids::ListenName;
use mainstay_kernel::durable;
use mainstay_model::listen::ServerName;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::listen::limits::KEEP_TIME;

/// The form of the file. A reader refuses a newer one.
const FORMAT: u32 = 1;

/// A server is the same while all three are.
pub(crate) type Which = (ListenName, ServerName, SocketAddr);

/// What an operator set of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) wanted: Wanted,
    /// `None`: as it is written.
    pub(crate) weight: Option<u16>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    format: u32,
    servers: Vec<StoredServer>,
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredServer {
    listen: ListenName,
    server: ServerName,
    address: SocketAddr,
    wanted: Wanted,
    weight: Option<u16>,
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Keepsake {
    path: PathBuf,
    /// The number of the newest write that has begun. Held during a write, on threads that wait for the
    /// disk alone: one that hung must not put what is older in the place of what is newer.
    written: Arc<Mutex<u64>>,
    next: u64,
}

impl Keepsake {
    /// The one at this path.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self {
            path,
            written: Arc::default(),
            next: 0,
        }
    }

    /// What was set when the gateway ended. Of a file that is of no use nothing, which is told: a
    /// gateway must let clients in.
    pub(crate) fn load(&self) -> BTreeMap<Which, Set> {
        let path = self.path.display();
        match self.read() {
            Ok(set) => {
                if !set.is_empty() {
                    tracing::info!(%path, servers = set.len(), "what operators set of servers is in force again");
                }
                set
            }
            Err(error) => {
                tracing::error!(%path, %error, "what operators set of servers is forgotten");
                BTreeMap::new()
            }
        }
    }

    fn read(&self) -> io::Result<BTreeMap<Which, Set>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let Format { format } = serde_json::from_slice(&text)?;
        if format > FORMAT {
            let text = format!("it has format {format}, this program reads up to {FORMAT}");
            return Err(io::Error::other(text));
        }
        let Stored { servers, .. } = serde_json::from_slice(&text)?;
        let servers = servers.into_iter().map(|one| {
            let set = Set {
                wanted: one.wanted,
                weight: one.weight,
            };
            ((one.listen, one.server, one.address), set)
        });
        Ok(servers.collect())
    }

    /// Writes what is set now. `Err`: it is not known to be kept.
    pub(crate) async fn save(&mut self, set: Vec<(Which, Set)>) -> Result<(), String> {
        self.next += 1;
        let (path, written, number) = (self.path.clone(), Arc::clone(&self.written), self.next);
        let write = spawn_blocking(move || {
            // What a write that panicked left is a number like any other.
            let mut newest = written.lock().unwrap_or_else(PoisonError::into_inner);
            if *newest > number {
                return Ok(());
            }
            *newest = number;
            replace(&path, set)
        });
        match timeout(KEEP_TIME, write).await {
            Ok(Ok(written)) => written.map_err(|error| error.to_string()),
            Ok(Err(_)) => Err("the write panicked".to_owned()),
            Err(_) => Err("the disk does not answer".to_owned()),
        }
    }
}

fn replace(path: &Path, set: Vec<(Which, Set)>) -> io::Result<()> {
    let servers = set.into_iter().map(|((listen, server, address), set)| {
        let Set { wanted, weight } = set;
        StoredServer {
            listen,
            server,
            address,
            wanted,
            weight,
        }
    });
    let stored = Stored {
        format: FORMAT,
        servers: servers.collect(),
    };
    durable::replace(path, &serde_json::to_vec_pretty(&stored)?, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn which(server: &str) -> Which {
        let listen = ListenName::parse("db").unwrap();
        let server = ServerName::parse(server).unwrap();
        (listen, server, ([127, 0, 0, 1], 1).into())
    }

    #[tokio::test]
    async fn what_was_set_is_read_again_and_a_file_that_is_none_is_nothing() {
        let dir = TempDir::new("keepsake");
        let path = dir.join("listeners.json");
        let mut keepsake = Keepsake::at(path.clone());
        assert!(keepsake.load().is_empty());
        let drained = Set {
            wanted: Wanted::Drain,
            weight: Some(7),
        };
        keepsake.save(vec![(which("a"), drained)]).await.unwrap();
        let read = Keepsake::at(path.clone()).load();
        assert_eq!(read, BTreeMap::from([(which("a"), drained)]));
        // A power loss in a write leaves a torn copy beside it.
        fs::write(path.with_extension("json.tmp"), "{\"for").unwrap();
        assert_eq!(Keepsake::at(path.clone()).load().len(), 1);
        keepsake.save(Vec::new()).await.unwrap();
        assert!(Keepsake::at(path.clone()).load().is_empty());
        for wrong in ["", "{", "{\"format\":2,\"servers\":[]}", "{\"format\":1}"] {
            fs::write(&path, wrong).unwrap();
            assert!(keepsake.read().is_err(), "{wrong}");
            assert!(keepsake.load().is_empty());
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told_and_leaves_what_was() {
        let dir = TempDir::new("keepsake");
        let path = dir.join("gone").join("listeners.json");
        let mut keepsake = Keepsake::at(path);
        let saved = keepsake.save(Vec::new()).await;
        assert!(saved.unwrap_err().contains("No such file"));
    }
}
