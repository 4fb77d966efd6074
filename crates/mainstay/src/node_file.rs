//! Reads the node file and shows its problems.

use std::path::Path;

use mainstay_api::node::{self, NodeFile};

use crate::arguments::Place;
use crate::service_file::unusable;

/// Reads the node file; shows all its problems and fails if it has any.
pub(crate) fn read(path: &Path, place: &Place) -> anyhow::Result<NodeFile> {
    let environment = |name: &str| std::env::var(name).ok();
    node::read(path, &environment).map_err(|problems| unusable(path, place, &problems))
}
