//! Reads the service file and shows its problems.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use mainstay_api::file::{self, FileProblems, Look};
use mainstay_model::ServiceSpec;

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::output;

/// The variables of the environment that a file asked for, with their values.
#[derive(Debug, Default)]
pub(crate) struct Variables(pub(crate) BTreeMap<String, String>);

/// Reads the services of `path`, and which variables they got values from.
pub(crate) fn read_with_variables(
    path: &Path,
    place: &Place,
) -> anyhow::Result<(Vec<ServiceSpec>, Variables)> {
    let asked = RefCell::new(BTreeMap::new());
    let services = read_in(path, place, &|name| {
        let value = std::env::var(name).ok()?;
        asked.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    })?;
    Ok((services, Variables(asked.into_inner())))
}

/// Reads the services of `path`; shows all its problems and fails if it has any.
pub(crate) fn read(path: &Path, place: &Place) -> anyhow::Result<Vec<ServiceSpec>> {
    read_in(path, place, &|name| std::env::var(name).ok())
}

fn read_in(
    path: &Path,
    place: &Place,
    environment: file::Environment<'_>,
) -> anyhow::Result<Vec<ServiceSpec>> {
    match file::read(path, environment) {
        Ok(read) => {
            show(&read.warnings);
            Ok(read.services)
        }
        Err(problems) => Err(unusable(path, place, &problems)),
    }
}

/// Shows what is wrong with a file, and fails.
pub(crate) fn unusable(path: &Path, place: &Place, problems: &FileProblems) -> anyhow::Error {
    if place.json {
        if let Err(error) = output::json(problems) {
            return error;
        }
    } else {
        show(problems);
    }
    let message = format!("`{}` cannot be used", path.display());
    Failure::new(Outcome::WrongInput, message).into()
}

fn show(problems: &FileProblems) {
    if !problems.is_empty() {
        output::warn_part(problems.render(Look::of(&std::io::stderr())));
    }
}
