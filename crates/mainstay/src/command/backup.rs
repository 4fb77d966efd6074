//! `mainstay backup`: makes one, lists them, and says whether one is whole.

use std::path::{Path, PathBuf};

use mainstay_broker::Counts;
use mainstay_ids::Timestamp;
use serde::Serialize;

use super::{or_dash, print_table, table};
use crate::arguments::{BackupDeed, BackupProcess, Place};
use crate::clock;
use crate::outcome::{Failure, Outcome};
use crate::output;
use crate::safekeeping::{
    self, BackupRecord, Entry, Found, Made, Manifest, Target, age, list, make, make_room, name_of,
    sweep, verify,
};

/// A backup as it is written with `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    backup: &'a Path,
    begun: Timestamp,
    age_ms: u64,
    mainstay: &'a str,
    host: &'a str,
    state: &'a Path,
    bytes: u64,
    services: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<Counts>,
}

impl<'a> Shown<'a> {
    fn new(backup: &'a Path, manifest: &'a Manifest, now: Timestamp) -> Self {
        Self {
            backup,
            begun: manifest.begun,
            age_ms: now.0.saturating_sub(manifest.begun.0),
            mainstay: &manifest.mainstay,
            host: &manifest.origin.host,
            state: &manifest.origin.state,
            bytes: manifest.bytes(),
            services: manifest.control.map(|part| part.services),
            broker: manifest.broker,
        }
    }
}

pub(crate) async fn run(
    place: &Place,
    directory: Option<PathBuf>,
    deed: Option<BackupDeed>,
) -> anyhow::Result<Outcome> {
    match deed {
        None => {
            let directory = directory.unwrap_or_else(|| PathBuf::from(name_of(clock::now())));
            let Made { path, manifest } = make(place, &Target::At(directory)).await?;
            tell(place, &path, &manifest)
        }
        Some(BackupDeed::Verify { backup }) => {
            let manifest = Manifest::read(&backup).map_err(|unusable| unusable.failure())?;
            verify(&backup, &manifest).await?;
            tell(place, &backup, &manifest)
        }
        Some(BackupDeed::Ls { directory }) => ls(place, directory),
    }
}

fn tell(place: &Place, backup: &Path, manifest: &Manifest) -> anyhow::Result<Outcome> {
    if place.json {
        output::json(&Shown::new(backup, manifest, clock::now()))?;
    } else {
        output::line(format_args!(
            "{} is whole: {} ({} bytes)",
            backup.display(),
            manifest.summary(),
            manifest.bytes()
        ))?;
    }
    Ok(Outcome::Holds)
}

/// Lists what is in a directory; by default in that into which the node's own backups go.
fn ls(place: &Place, directory: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let record = BackupRecord::load(&place.state)?;
    let own = record.as_ref().map(|record| record.to.clone());
    let directory = directory.or(own).unwrap_or_else(|| PathBuf::from("."));
    if !directory.is_dir() {
        let message = format!("there is no directory `{}`", directory.display());
        let remedy = "if it is on a disk of its own, is that mounted?";
        return Err(Failure::new(Outcome::WrongInput, message)
            .remedy(remedy)
            .into());
    }
    let now = clock::now();
    let entries = list(&directory)?;
    if place.json {
        let whole = entries.iter().filter_map(|entry| match &entry.found {
            Found::Whole(manifest) => Some(Shown::new(&entry.path, manifest, now)),
            Found::UnderWay | Found::Unusable(_) => None,
        });
        output::json(&whole.collect::<Vec<_>>())?;
        return Ok(Outcome::Holds);
    }
    let heading = ["BACKUP", "AGE", "SERVICES", "QUEUES", "MESSAGES", "BYTES"];
    let mut rows = table(&heading);
    let mut others = Vec::new();
    for Entry { path, found } in &entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match found {
            Found::Whole(manifest) => {
                let counts = manifest.broker;
                rows.add_row([
                    name.into_owned(),
                    age(now, manifest.begun),
                    or_dash(manifest.control.map(|part| part.services)),
                    or_dash(counts.map(|counts| counts.queues)),
                    or_dash(counts.map(|counts| counts.messages)),
                    manifest.bytes().to_string(),
                ]);
            }
            Found::UnderWay => others.push(format!("{name} is being made")),
            Found::Unusable(why) => others.push(format!("unusable: {why}")),
        }
    }
    print_table(&rows)?;
    for other in others {
        output::line(other)?;
    }
    Ok(Outcome::Holds)
}

/// What the supervisor starts when a backup is due: makes one, removes what is too old, and writes down how it went.
pub(crate) async fn scheduled(place: &Place, process: &BackupProcess) -> anyhow::Result<Outcome> {
    let made = make_scheduled(place, process).await;
    let now = clock::now();
    let record = BackupRecord::load(&place.state)?;
    let mut record = record.ok_or_else(|| anyhow::anyhow!("nobody wants backups any more"))?;
    match &made {
        Ok(made) => record.succeeded(made, now),
        Err(error) => record.failed(format!("{error:#}"), now),
    }
    record.save(&place.state)?;
    let made = made?;
    output::warn(format_args!(
        "{} is whole: {}",
        made.path.display(),
        made.manifest.summary()
    ));
    // The new one is there whatever becomes of the old ones; that they stay is told, before the disk is full of them.
    let gone = make_room(&process.to, &place.state, process.keep);
    if let Err(error) = &gone {
        record.failed(format!("{error:#}"), clock::now());
        record.save(&place.state)?;
    }
    for gone in gone? {
        output::warn(format_args!("removed the old backup {}", gone.display()));
    }
    Ok(Outcome::Holds)
}

async fn make_scheduled(place: &Place, process: &BackupProcess) -> anyhow::Result<Made> {
    if process.to.is_dir() {
        sweep(&process.to)?;
    }
    safekeeping::make(place, &Target::In(process.to.clone())).await
}
