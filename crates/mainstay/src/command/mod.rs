//! One file per command of the command line; each is a caller of the API and decides nothing.

pub(crate) mod backup;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod forward;
pub(crate) mod intake;
pub(crate) mod keepalived;
pub(crate) mod logs;
pub(crate) mod plan;
pub(crate) mod prove;
pub(crate) mod ps;
pub(crate) mod purge;
pub(crate) mod queue;
pub(crate) mod request;
pub(crate) mod resolve;
pub(crate) mod restore;
pub(crate) mod rollback;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod secret;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod validate;
pub(crate) mod vip;
pub(crate) mod why;

use mainstay_api::client::Client;
use mainstay_api::wire::ServiceStatus;
use mainstay_ids::ServiceName;
use serde::Serialize;

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// The name of the control centre's socket in the state directory.
pub(crate) const API_SOCKET: &str = "api.sock";

/// A caller of the control centre of `place`.
pub(crate) fn client(place: &Place) -> Client {
    Client::unix(&place.state.join(API_SOCKET))
}

/// A table without rules, as programs in a pipe expect it: a heading, then a row a line.
pub(crate) fn table(heading: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(heading.iter().copied());
    table
}

/// Prints a table without blanks at the ends of its lines.
pub(crate) fn print_table(table: &comfy_table::Table) -> anyhow::Result<()> {
    for line in table.to_string().lines() {
        output::line(line.strip_prefix(' ').unwrap_or(line).trim_end())?;
    }
    Ok(())
}

/// A wire word such as `rolling_out` as people read it: `rolling out`.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// Fails if there is no such service.
pub(crate) async fn must_exist(client: &Client, service: &ServiceName) -> anyhow::Result<()> {
    let services: Vec<ServiceStatus> = client.get("/v1/services").await?;
    if services.iter().any(|known| known.service == *service) {
        return Ok(());
    }
    let failure = Failure::new(Outcome::Refused, format!("there is no service `{service}`"));
    Err(failure
        .remedy("`mainstay status` lists the services")
        .into())
}

/// Tells what the user should know about an accepted change.
pub(crate) fn tell_notes(notes: &[String]) {
    for note in notes {
        output::warn(format_args!("note: {note}"));
    }
}

/// A value or a dash.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
