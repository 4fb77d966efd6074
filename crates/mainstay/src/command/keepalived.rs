//! `mainstay import keepalived FILE` and `mainstay export keepalived FILE`: what is made goes to standard output, what it
//! does not say to standard error, so that both can be kept.

use std::path::Path;

use mainstay_api::{keepalived, node};

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::{node_file, output};

pub(crate) fn import(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let imported = keepalived::import(file).map_err(|problems| {
        output::warn(&problems);
        let message = format!("`{}` cannot be taken over", file.display());
        Failure::new(Outcome::WrongInput, message)
    })?;
    let tables = node::vip_tables(&imported.vips);
    if place.json {
        let left = imported.left.iter().map(|left| {
            let (file, line) = (&*left.place.file, left.place.line);
            serde_json::json!({ "file": file, "line": line, "key": left.key, "why": left.why })
        });
        let left: Vec<serde_json::Value> = left.collect();
        output::json(&serde_json::json!({ "tables": tables, "left": left }))?;
        return Ok(Outcome::Holds);
    }
    output::line(tables.trim_end())?;
    if imported.vips.is_empty() {
        output::warn("there is no `vrrp_instance` in it");
    }
    for left in &imported.left {
        let keepalived::Left { place, key, why } = left;
        output::warn(format_args!("{place}: {key}: {why}"));
    }
    Ok(Outcome::Holds)
}

pub(crate) fn export(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let node = node_file::read(file, place)?;
    if node.vips.is_empty() {
        let message = format!("`{}` has no floating address", file.display());
        let remedy = "write `[vip.NAME]` with `address`, `interface` and `vrid`";
        let failure = Failure::new(Outcome::WrongInput, message).remedy(remedy);
        return Err(failure.into());
    }
    let exported = keepalived::export(&node.vips);
    if place.json {
        let left = exported.left.iter();
        let left = left.map(|left| serde_json::json!({ "key": left.key, "why": left.why }));
        let left: Vec<serde_json::Value> = left.collect();
        output::json(&serde_json::json!({ "text": exported.text, "left": left }))?;
        return Ok(Outcome::Holds);
    }
    output::line(exported.text.trim_end())?;
    for keepalived::Unsaid { key, why } in &exported.left {
        output::warn(format_args!("{}: {key}: {why}", file.display()));
    }
    Ok(Outcome::Holds)
}
