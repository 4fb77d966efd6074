//! The vault as the API's tasks use it: one call at a time, on threads that may block.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mainstay_api::wire::{Problem, ProblemCode};
use mainstay_ids::{SecretName, ServiceName, Timestamp};
use mainstay_model::ServiceSpec;
use mainstay_model::secret::SecretText;
use mainstay_vault::{Error, Listed, Vault};
use tokio::time::timeout;

/// How long a call waits for the disk: below the ten seconds after which callers of the API give up.
const DEADLINE: Duration = Duration::from_secs(8);

/// The secrets; cheap to clone.
#[derive(Clone)]
pub(crate) struct Secrets {
    /// Locked inside of one blocking call, never over an await: the vault's calls must not overlap,
    /// and whether the disk is slow is no concern of those who own the state.
    vault: Arc<Mutex<Vault>>,
}

impl Secrets {
    pub(crate) fn of(state: &Path) -> Self {
        Self {
            vault: Arc::new(Mutex::new(Vault::of(state))),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Listed>, Problem> {
        self.call(Vault::list).await
    }

    /// Gives the revision.
    pub(crate) async fn set(&self, name: SecretName, value: SecretText) -> Result<u64, Problem> {
        self.call(move |vault| vault.set(&name, &value, now()))
            .await
    }

    /// `false`: there was none.
    pub(crate) async fn remove(&self, name: SecretName) -> Result<bool, Problem> {
        self.call(move |vault| vault.remove(&name)).await
    }

    pub(crate) async fn open(&self, name: SecretName) -> Result<Option<SecretText>, Problem> {
        self.call(move |vault| vault.open(&name)).await
    }

    /// Refuses a declaration that names what does not exist. A secret that is removed in this very
    /// moment is told when an instance is to be started.
    pub(crate) async fn check(&self, services: &[ServiceSpec]) -> Result<(), Problem> {
        if services.iter().all(|spec| spec.secrets.is_empty()) {
            return Ok(());
        }
        let listed = self.list().await?;
        let known = |name: &SecretName| listed.iter().any(|secret| secret.name == *name);
        for spec in services {
            if let Some(missing) = spec.secrets.values().find(|name| !known(name)) {
                let message = format!(
                    "service `{}` names the secret `{missing}`, which does not exist",
                    spec.name
                );
                let remedy = format!(
                    "`mainstay secret set {missing}`, and declare it again; `mainstay dev` starts \
                     without a file, too"
                );
                return Err(Problem::new(ProblemCode::SecretMissing, message).with_remedy(remedy));
            }
        }
        Ok(())
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vault) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        let vault = self.vault.clone();
        let work = tokio::task::spawn_blocking(move || {
            // It holds paths alone: a call that panicked left nothing half done in it.
            work(&vault.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match timeout(DEADLINE, work).await {
            Ok(Ok(done)) => done.map_err(|error| problem(&error)),
            Ok(Err(_)) => {
                let message = "the call to the secrets failed";
                Err(Problem::new(ProblemCode::InternalFault, message))
            }
            Err(_) => {
                let message =
                    format!("the disk with the secrets did not answer within {DEADLINE:?}");
                Err(Problem::new(ProblemCode::StorageSlow, message))
            }
        }
    }
}

/// Which services name which secret: as they are wanted, and as they still run.
pub(crate) fn users<'s>(
    specs: impl Iterator<Item = &'s ServiceSpec>,
) -> BTreeMap<SecretName, Vec<ServiceName>> {
    let mut users: BTreeMap<SecretName, Vec<ServiceName>> = BTreeMap::new();
    for spec in specs {
        for secret in spec.secrets.values() {
            let services = users.entry(secret.clone()).or_default();
            if !services.contains(&spec.name) {
                services.push(spec.name.clone());
            }
        }
    }
    users
}

fn problem(error: &Error) -> Problem {
    let cause = error.source().map(|cause| format!(": {cause}"));
    let code = match error {
        Error::KeyMissing { .. }
        | Error::KeyDamaged { .. }
        | Error::KeyWrong { .. }
        | Error::Forged { .. } => ProblemCode::SecretLocked,
        Error::TooMany => ProblemCode::TooManySecrets,
        Error::File { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ProblemCode::StorageFull,
            io::ErrorKind::ReadOnlyFilesystem => ProblemCode::StorageReadOnly,
            _ => ProblemCode::StorageFailed,
        },
        Error::Newer { .. } | Error::Damaged { .. } => ProblemCode::StorageFailed,
        Error::Seal { .. } => ProblemCode::InternalFault,
    };
    Problem::new(code, format!("{error}{}", cause.unwrap_or_default()))
}

fn now() -> Timestamp {
    let of_day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ms = of_day.unwrap_or_default().as_millis();
    Timestamp(u64::try_from(ms).unwrap_or(u64::MAX))
}
