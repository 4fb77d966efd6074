//! `mainstay backup [FILE]`: through the control centre, or, where none runs, from its directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use mainstay_api::client::Error;
use mainstay_api::wire::Backup;
use mainstay_server::SafekeepingError;
use serde::Serialize;

use super::client;
use crate::arguments::Place;
use crate::clock;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// What is written with `--json`.
#[derive(Serialize)]
struct Done<'a> {
    file: &'a Path,
    bytes: u64,
}

pub(crate) async fn run(place: &Place, file: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let seconds = clock::now().0 / 1000;
    let file = file.unwrap_or_else(|| PathBuf::from(format!("mainstay-backup-{seconds}.db")));
    if file.exists() {
        return Err(exists(&file).into());
    }
    let bytes = match client(place).post::<_, Backup>("/v1/backup", &()).await {
        Ok(made) => {
            take(&place.state.join(&made.file), &file)
                .with_context(|| format!("cannot write `{}`", file.display()))?;
            made.bytes
        }
        Err(Error::Connect { .. }) => from_directory(place, &file).await?,
        Err(other) => return Err(other.into()),
    };
    if place.json {
        let file = &file;
        output::json(&Done { file, bytes })?;
    } else {
        output::line(format_args!("{} ({bytes} bytes)", file.display()))?;
    }
    Ok(Outcome::Holds)
}

fn exists(file: &Path) -> Failure {
    let message = format!(
        "`{}` exists already; a backup replaces no file",
        file.display()
    );
    Failure::new(Outcome::WrongInput, message).remedy("remove it, or name another")
}

async fn from_directory(place: &Place, file: &Path) -> anyhow::Result<u64> {
    let copied = mainstay_server::backup(&place.state, file).await;
    copied.map_err(|error| match error {
        SafekeepingError::Nothing { .. } => Failure::new(Outcome::WrongInput, error.to_string())
            .remedy("name the state directory with --state")
            .into(),
        SafekeepingError::Running { .. } => {
            let message = format!("{error}, and does not answer");
            Failure::new(Outcome::Unreachable, message)
                .remedy("look into logs/server.log there")
                .into()
        }
        other => anyhow::Error::from(other),
    })
}

/// Takes the control centre's copy away to `file`, which is whole and durable when it has its name.
fn take(made: &Path, file: &Path) -> io::Result<()> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    io::copy(&mut File::open(made)?, &mut to)?;
    to.sync_all()?;
    // Unlike a rename it replaces nothing that came in between.
    fs::hard_link(&partial, file)?;
    fs::remove_file(&partial)?;
    let directory = file.parent().filter(|parent| *parent != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    fs::remove_file(made)
}
