//! The secrets of an attempt: fetched when it is to start, handed to its shim in memory, and never
//! written to a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mainstay_api::client::{self, Client};
use mainstay_api::wire::{ProblemCode, SecretValue};
use mainstay_ids::SecretName;
use mainstay_model::StartFailure;
use mainstay_model::secret::SecretText;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// How long all secrets of an attempt may take. Each is a read of a small file on this machine; the
/// instance's task hears no order meanwhile.
const FETCH_DEADLINE: Duration = Duration::from_secs(3);

/// Values by the variable in which they are handed over. `Debug` shows none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Secrets(BTreeMap<String, SecretText>);

/// Why the secrets of an attempt are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretRefused {
    #[error("cannot fetch the secret `{name}`")]
    Away {
        name: SecretName,
        #[source]
        source: client::Error,
    },
    #[error("the control centre did not hand out the secrets within {FETCH_DEADLINE:?}")]
    Late,
    #[error("there is no secret `{name}`; `mainstay secret set {name}`")]
    Missing { name: SecretName },
    #[error("the secret `{name}` cannot be opened")]
    Locked {
        name: SecretName,
        #[source]
        source: client::Error,
    },
    #[error("cannot hand the secrets to the shim")]
    Memory(#[source] io::Error),
}

impl SecretRefused {
    /// What it means to the user.
    pub(crate) fn failure(&self) -> StartFailure {
        match self {
            Self::Away { .. } | Self::Late => StartFailure::SecretsAway,
            Self::Missing { .. } => StartFailure::SecretMissing,
            Self::Locked { .. } => StartFailure::SecretLocked,
            Self::Memory(error) => StartFailure::System(error.raw_os_error().unwrap_or_default()),
        }
    }

    fn of(name: &SecretName, error: client::Error) -> Self {
        let name = name.clone();
        match error {
            client::Error::Refused(problem) if problem.code == ProblemCode::SecretUnknown => {
                Self::Missing { name }
            }
            source if source.is_transient() => Self::Away { name, source },
            source => Self::Locked { name, source },
        }
    }
}

/// Asks the control centre for the values that a service names.
pub(crate) async fn fetch(
    client: &Client,
    wanted: &BTreeMap<String, SecretName>,
) -> Result<Secrets, SecretRefused> {
    let fetching = async {
        let mut values = BTreeMap::new();
        for (variable, name) in wanted {
            let path = format!("/v1/secrets/{name}/value");
            let SecretValue { value } = client
                .get(&path)
                .await
                .map_err(|error| SecretRefused::of(name, error))?;
            values.insert(variable.clone(), value);
        }
        Ok(Secrets(values))
    };
    timeout(FETCH_DEADLINE, fetching)
        .await
        .map_err(|_| SecretRefused::Late)?
}

impl Secrets {
    /// The variables with their values.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.0.iter();
        variables.map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// Something that the shim inherits and reads; it is gone with the two. `None`: there are none.
    pub(crate) fn in_memory(&self) -> Result<Option<OwnedFd>, SecretRefused> {
        if self.0.is_empty() {
            return Ok(None);
        }
        // Not a pipe: it would hold 64 KiB before somebody reads.
        let write = || -> io::Result<OwnedFd> {
            let fd = memfd_create(c"mainstay-secrets", MemfdFlags::CLOEXEC)?;
            let mut file = File::from(fd);
            file.write_all(&serde_json::to_vec(self)?)?;
            file.rewind()?;
            Ok(file.into())
        };
        write().map(Some).map_err(SecretRefused::Memory)
    }

    /// What [`Secrets::in_memory`] gave.
    pub(crate) fn read(fd: OwnedFd) -> io::Result<Self> {
        let mut text = Vec::new();
        File::from(fd).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_in_memory_is_read_back_and_never_shown() {
        assert!(Secrets::default().in_memory().unwrap().is_none());
        let long = "x".repeat(mainstay_model::secret::SECRET_LEN_MAX);
        let values = ["A", "B", "C"].map(|name| {
            let value = SecretText::new(format!("{name}{}", &long[1..])).unwrap();
            (name.to_owned(), value)
        });
        let secrets = Secrets(BTreeMap::from(values));
        let read = Secrets::read(secrets.in_memory().unwrap().unwrap()).unwrap();
        assert_eq!(read.0, secrets.0);
        assert!(!format!("{secrets:?}").contains("xx"));
    }
}
