//! `mainstay schema`: the JSON schema of the service file.

use crate::outcome::Outcome;
use crate::output;

pub(crate) fn run() -> anyhow::Result<Outcome> {
    output::json(&mainstay_api::file::schema())?;
    Ok(Outcome::Holds)
}
