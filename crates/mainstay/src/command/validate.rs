//! `mainstay validate FILE`.

use std::fs;
use std::path::Path;

use mainstay_api::node::is_node_file;

use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::output;
use crate::{node_file, service_file};

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A node file.
    Node,
    /// What its keys say.
    ByItsKeys,
}

impl From<bool> for Form {
    fn from(node: bool) -> Self {
        if node { Self::Node } else { Self::ByItsKeys }
    }
}

pub(crate) fn run(place: &Place, file: &Path, form: Form) -> anyhow::Result<Outcome> {
    // What cannot be read is told by whoever reads it for good.
    let text = || fs::read_to_string(file).unwrap_or_default();
    if form == Form::Node || is_node_file(&text()) {
        node(place, file)
    } else {
        services(place, file)
    }
}

fn node(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let node = node_file::read(file, place)?;
    let roles: Vec<&str> = node.roles.iter().map(|role| role.as_str()).collect();
    if place.json {
        output::json(&serde_json::json!({ "roles": roles, "state": node.state }))?;
    } else {
        output::line(format_args!(
            "{}: no problem; a node file, its roles: {}",
            file.display(),
            roles.join(", ")
        ))?;
    }
    Ok(Outcome::Holds)
}

fn services(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let services = service_file::read(file, place)?;
    if place.json {
        output::json(&services)?;
    } else {
        let names: Vec<String> = services.iter().map(|spec| spec.name.to_string()).collect();
        output::line(format_args!(
            "{}: no problem; its services: {}",
            file.display(),
            names.join(", ")
        ))?;
    }
    Ok(Outcome::Holds)
}
