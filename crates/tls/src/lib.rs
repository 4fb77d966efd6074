//! TLS of servers: certificate, key and the authority of clients, from PEM files to what rustls serves with.
//!
//! It opens no socket, follows no file and decides nothing: whoever serves does. rustls runs on ring, with its safe
//! defaults: TLS 1.2 and 1.3.
//!
//! Start reading at [`load`].

mod error;
mod pem;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

pub use crate::error::{LoadError, Part, Why};
use crate::pem::{certificates, private_key};

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// Clients must have a certificate of these authorities; `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

impl Files {
    /// All of them.
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.certificate.clone(), self.key.clone()];
        paths.extend(self.client_ca.clone());
        paths
    }
}

/// Reads them and sees that they fit each other. Blocks on the disk.
///
/// # Errors
///
/// Which of the files cannot be used, and why.
pub fn load(files: &Files) -> Result<Arc<ServerConfig>, LoadError> {
    let provider = Arc::new(ring::default_provider());
    let certified = certified(files, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of both versions");
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
    };
    let config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(Arc::new(config))
}

fn certified(files: &Files, provider: &CryptoProvider) -> Result<CertifiedKey, LoadError> {
    let chain = certificates(Part::Certificate, &files.certificate)?;
    let key = private_key(&files.key)?;
    let refuse = |part: Part, why| LoadError {
        part,
        path: match part {
            Part::Certificate | Part::ClientCa => files.certificate.clone(),
            Part::Key => files.key.clone(),
        },
        why,
    };
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| refuse(Part::Key, Why::Unusable(error)))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown is what a key says that does not show its public half: clients will see.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let certificate = files.certificate.clone();
            Err(refuse(Part::Key, Why::OfAnother { certificate }))
        }
        Err(error) => Err(refuse(Part::Certificate, Why::Unusable(error))),
    }
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, LoadError> {
    let refuse = |why| LoadError {
        part: Part::ClientCa,
        path: path.to_owned(),
        why,
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(Part::ClientCa, path)? {
        let authority: CertificateDer<'static> = authority;
        roots
            .add(authority)
            .map_err(|error| refuse(Why::Unusable(error)))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| refuse(Why::Verifier(error)))
}
