//! Reads the service file and shows its problems.

use std::path::Path;

use mainstay_api::file::{self, FileProblems, Look};
use mainstay_model::ServiceSpec;

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// Reads the services of `path`; shows all its problems and fails if it has any.
pub(crate) fn read(path: &Path, place: &Place) -> anyhow::Result<Vec<ServiceSpec>> {
    match file::read(path, &|name| std::env::var(name).ok()) {
        Ok(read) => {
            show(&read.warnings);
            Ok(read.services)
        }
        Err(problems) => {
            if place.json {
                output::json(&problems)?;
            } else {
                show(&problems);
            }
            let message = format!("`{}` cannot be used", path.display());
            Err(Failure::new(Outcome::WrongInput, message).into())
        }
    }
}

fn show(problems: &FileProblems) {
    if !problems.is_empty() {
        output::warn_part(problems.render(Look::of(&std::io::stderr())));
    }
}
