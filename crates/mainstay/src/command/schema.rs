//! `mainstay schema`: the JSON schema of the service file.

use super::print_json;
use crate::outcome::Outcome;

pub(crate) fn run() -> anyhow::Result<Outcome> {
    print_json(&mainstay_api::file::schema())?;
    Ok(Outcome::Holds)
}
