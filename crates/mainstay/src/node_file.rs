//! Reads the node file and shows its problems.

use std::path::Path;

use mainstay_api::node::{self, CertificateFile, CertificateFiles, NodeFile, Unfit};
use mainstay_tls::{Files, Part};

use crate::arguments::Place;
use crate::service_file::unusable;

/// Reads the node file; shows all its problems and fails if it has any.
pub(crate) fn read(path: &Path, place: &Place) -> anyhow::Result<NodeFile> {
    let environment = |name: &str| std::env::var(name).ok();
    node::read(path, &environment, &look_at_certificate)
        .map_err(|problems| unusable(path, place, &problems))
}

/// Loads it as whoever serves with it will.
fn look_at_certificate(files: &CertificateFiles) -> Result<(), Unfit> {
    let loaded = mainstay_tls::load(&tls_files(files));
    loaded.map(drop).map_err(|error| Unfit {
        file: match error.part {
            Part::Certificate => CertificateFile::Certificate,
            Part::Key => CertificateFile::Key,
            Part::ClientCa => CertificateFile::ClientCa,
        },
        message: format!("{error}: {}", error.why),
        help: error.remedy(),
    })
}

/// The same in the words of who loads them.
fn tls_files(files: &CertificateFiles) -> Files {
    let CertificateFiles {
        certificate,
        key,
        client_ca,
    } = files.clone();
    Files {
        certificate,
        key,
        client_ca,
    }
}
