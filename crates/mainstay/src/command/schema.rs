//! `mainstay schema`: the JSON schema of the service file, or the description of the API.

use serde_json::Value;

use crate::outcome::Outcome;
use crate::output;

pub(crate) fn print(schema: &Value) -> anyhow::Result<Outcome> {
    output::json(schema)?;
    Ok(Outcome::Holds)
}
