//! Why a file cannot be used.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;
use rustls::server::VerifierBuilderError;

/// Which of the files it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The server's certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of clients.
    ClientCa,
}

impl Part {
    /// What it is in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::ClientCa => "authority of clients",
        }
    }
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the {} `{}`", part.noun(), path.display())]
pub struct LoadError {
    /// Which.
    pub part: Part,
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub why: Why,
}

impl LoadError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match &self.why {
            Why::Read(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "let the account that runs Mainstay read it".to_owned()
            }
            Why::Read(_) | Why::TooLong => "check the path".to_owned(),
            Why::NoCertificate => {
                "it begins with `-----BEGIN CERTIFICATE-----`; `openssl x509 -in FILE` shows one".to_owned()
            }
            Why::NoKey => {
                "it begins with `-----BEGIN PRIVATE KEY-----`; `openssl pkey -in FILE -noout` checks one".to_owned()
            }
            Why::Encrypted => {
                "nobody is there to type a passphrase: decrypt it with `openssl pkey -in FILE -out KEY`, readable by its owner alone".to_owned()
            }
            Why::Pem(_) => "copy it anew from where it was made".to_owned(),
            Why::Unusable(_) | Why::Verifier(_) => {
                "make it anew: RSA of 2048 bits and more, ECDSA on P-256 or P-384, or Ed25519".to_owned()
            }
            Why::OfAnother { .. } => {
                "put the key and the certificate there that were made together".to_owned()
            }
        }
    }
}

/// What is the matter with it.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The operating system's reason.
    #[error(transparent)]
    Read(io::Error),
    /// It is no such file.
    #[error("it is longer than a mebibyte")]
    TooLong,
    /// There is none in it.
    #[error("it has no certificate in PEM")]
    NoCertificate,
    /// There is none in it.
    #[error("it has no private key in PEM")]
    NoKey,
    /// It has a passphrase.
    #[error("it is encrypted")]
    Encrypted,
    /// It is damaged.
    #[error("it is no PEM: {0}")]
    Pem(pem::Error),
    /// What is in it is no certificate, or none that rustls knows to use.
    #[error(transparent)]
    Unusable(rustls::Error),
    /// Nobody can be looked at with it.
    #[error(transparent)]
    Verifier(VerifierBuilderError),
    /// It does not fit.
    #[error("it is not the key of the certificate `{}`", certificate.display())]
    OfAnother {
        /// Of this one.
        certificate: PathBuf,
    },
}
