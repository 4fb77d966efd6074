//! `mainstay restore BACKUP`: puts a backup in the place of the state.

use std::path::{Path, PathBuf};

use mainstay_broker::Counts;
use mainstay_server::Restored;
use serde::Serialize;

use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::output;
use crate::safekeeping::{self, Returned};

/// What is written with `--json`.
#[derive(Serialize)]
struct Done<'a> {
    backup: &'a Path,
    services: Option<usize>,
    /// The next control centre begins behind it.
    epoch: Option<u64>,
    queues: Option<u64>,
    messages: Option<u64>,
    /// Where is what was replaced.
    kept: Vec<PathBuf>,
}

pub(crate) async fn run(place: &Place, backup: &Path) -> anyhow::Result<Outcome> {
    if backup.is_file() {
        return restore_file(place, backup).await;
    }
    let returned = safekeeping::restore(place, backup).await?;
    let Returned {
        manifest,
        epoch,
        broker,
        kept,
    } = returned;
    let broker = broker.as_ref();
    tell(
        place,
        &Done {
            backup,
            services: manifest.control.map(|part| part.services),
            epoch,
            queues: broker.map(|Counts { queues, .. }| *queues),
            messages: broker.map(|Counts { messages, .. }| *messages),
            kept,
        },
        &format!(
            "restored {}, as counted when it was made at {}",
            manifest.summary(),
            manifest.begun
        ),
    )
}

/// A copy of the control centre's state alone, as earlier versions made it.
async fn restore_file(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let Restored {
        epoch,
        services,
        kept,
    } = safekeeping::restore_file(place, file).await?;
    tell(
        place,
        &Done {
            backup: file,
            services: Some(services),
            epoch: Some(epoch.0),
            queues: None,
            messages: None,
            kept: kept.into_iter().collect(),
        },
        &format!("restored {services} services"),
    )
}

fn tell(place: &Place, done: &Done<'_>, said: &str) -> anyhow::Result<Outcome> {
    if place.json {
        output::json(done)?;
        return Ok(Outcome::Holds);
    }
    output::line(said)?;
    for kept in &done.kept {
        output::line(format_args!(
            "what was there before is kept as {}",
            kept.display()
        ))?;
    }
    output::line("`mainstay dev` without a file, or `mainstay run`, starts it")?;
    Ok(Outcome::Holds)
}
