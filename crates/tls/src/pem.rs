//! PEM files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{LoadError, Part, Why};

/// The longest file that is read: a bundle of all public authorities has a quarter of it.
const FILE_LEN_MAX: u64 = 1024 * 1024;
/// How a key with a passphrase begins (PKCS#8), or goes on (of old).
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// The certificates of a file, at least one.
pub(crate) fn certificates(
    part: Part,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let read = || {
        let text = text(path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.map_err(Why::Pem)?;
        if found.is_empty() {
            return Err(Why::NoCertificate);
        }
        Ok(found)
    };
    read().map_err(|why| refused(part, path, why))
}

/// The first key of a file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let read = || {
        let text = text(path)?;
        match PrivateKeyDer::from_pem_slice(&text) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) if is_encrypted(&text) => Err(Why::Encrypted),
            Err(pem::Error::NoItemsFound) => Err(Why::NoKey),
            Err(_) if is_encrypted(&text) => Err(Why::Encrypted),
            Err(error) => Err(Why::Pem(error)),
        }
    };
    read().map_err(|why| refused(Part::Key, path, why))
}

fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    ENCRYPTED.iter().any(|mark| text.contains(mark))
}

fn refused(part: Part, path: &Path, why: Why) -> LoadError {
    let path = path.to_owned();
    LoadError { part, path, why }
}

fn text(path: &Path) -> Result<Vec<u8>, Why> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Why::Read)?;
    file.take(FILE_LEN_MAX + 1)
        .read_to_end(&mut text)
        .map_err(Why::Read)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > FILE_LEN_MAX) {
        return Err(Why::TooLong);
    }
    Ok(text)
}
