//! `mainstay restore FILE`: puts a copy in the place of the state.

use std::path::{Path, PathBuf};

use mainstay_server::{Restored, SafekeepingError};
use serde::Serialize;

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::output;
use crate::supervisor::{self, lock};

/// What is written with `--json`.
#[derive(Serialize)]
struct Done<'a> {
    file: &'a Path,
    services: usize,
    /// The next control centre begins behind it.
    epoch: u64,
    /// Where the state is that was replaced.
    kept: Option<PathBuf>,
}

pub(crate) async fn run(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    if !file.is_file() {
        let message = format!("there is no file `{}`", file.display());
        return Err(Failure::new(Outcome::WrongInput, message).into());
    }
    // Until the end nobody starts a control centre here; whoever has one is told how to stop it.
    let _lock = lock::take(&place.state)?;
    let node = supervisor::node()?;
    let restored = mainstay_server::restore(&place.state, &node, file).await;
    let Restored {
        epoch,
        services,
        kept,
    } = restored.map_err(explained)?;
    if place.json {
        output::json(&Done {
            file,
            services,
            epoch: epoch.0,
            kept,
        })?;
        return Ok(Outcome::Holds);
    }
    output::line(format_args!("restored {services} services"))?;
    if let Some(kept) = kept {
        output::line(format_args!(
            "the state before it is kept as {}",
            kept.display()
        ))?;
    }
    output::line("`mainstay dev` without a file starts them")?;
    Ok(Outcome::Holds)
}

/// What the user can mend is no failure of ours.
fn explained(error: SafekeepingError) -> anyhow::Error {
    use std::error::Error as _;
    let remedy = match &error {
        SafekeepingError::Running { .. } => {
            "stop it first: `mainstay dev` in that directory adopts it, and Ctrl-C stops it"
        }
        SafekeepingError::Unusable { .. }
        | SafekeepingError::Content { .. }
        | SafekeepingError::Empty { .. }
        | SafekeepingError::Senseless { .. } => "nothing was changed; take another copy",
        SafekeepingError::Node { .. } => "nothing was changed; restore it on its own node",
        SafekeepingError::Nothing { .. }
        | SafekeepingError::Open(_)
        | SafekeepingError::Copy(_)
        | SafekeepingError::File { .. }
        | SafekeepingError::Prepare(_)
        | SafekeepingError::Legacy(_) => return error.into(),
    };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into()
}
