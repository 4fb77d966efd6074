//! `mainstay validate FILE`.

use std::path::Path;

use super::print_json;
use crate::arguments::Place;
use crate::outcome::Outcome;
use crate::service_file;

pub(crate) fn run(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let services = service_file::read(file, place)?;
    if place.json {
        print_json(&services)?;
    } else {
        let names: Vec<String> = services.iter().map(|spec| spec.name.to_string()).collect();
        println!(
            "{}: {} services, no problem: {}",
            file.display(),
            names.len(),
            names.join(", ")
        );
    }
    Ok(Outcome::Holds)
}
