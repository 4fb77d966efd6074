//! `mainstay validate FILE`.

use std::path::Path;

use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::output;
use crate::service_file;

pub(crate) fn run(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
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
