//! From what a service says to what is started: templates filled, environment complete.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mainstay_ids::ServiceName;
use mainstay_kernel::spawn::resolve;
use mainstay_kernel::{Account, Rights, Spawn, SpawnError, Step};
use mainstay_model::{PlannedInstance, StartFailure, Template};
use rustix::io::Errno;

use crate::record::{AttemptSpec, Launch};

/// What an instance gets of the agent's own environment.
const OWN_VARIABLES: [&str; 3] = ["PATH", "HOME", "LANG"];

/// The variable with the instance's id.
const INSTANCE: &str = "MAINSTAY_INSTANCE";

/// The variable that tells agents of different state directories apart.
pub(crate) const MARK: &str = "MAINSTAY_MARK";

/// The same for shims, which instances do not inherit.
pub(crate) const SHIM_MARK: &str = "MAINSTAY_SHIM_MARK";

/// Under which accounts a service runs that names none, when Mainstay runs as root: the first that
/// there is. The first is only for this; nothing else should be its own. Other programs run as
/// `nobody`, too, and could be reached from there, but it exists everywhere. Not `mainstay`, which
/// somebody may have made for Mainstay itself: it would own the state directory.
const DEFAULT_ACCOUNTS: [&str; 2] = ["mainstay-services", "nobody"];

/// What files lack that an instance makes, whatever Mainstay was started with: nobody but the owner
/// may write.
const UMASK: u32 = 0o022;

/// Why the account of an instance cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("there is no account `{name}`")]
    Unknown { name: String },
    #[error("cannot look up the account `{name}`")]
    Lookup {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// A text names a service whose address is not in the plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the address of the service `{service}` is not known")]
pub(crate) struct AddressUnknown {
    service: ServiceName,
}

/// What an instance runs, when it is to listen on `address`. `state` is the agent's mark.
pub(crate) fn instance(
    planned: &PlannedInstance,
    address: SocketAddr,
    state: &str,
) -> Result<Launch, AddressUnknown> {
    let spec = &planned.spec;
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for name in OWN_VARIABLES {
        if let Ok(value) = env::var(name) {
            environment.insert(name.to_owned(), value);
        }
    }
    let user = spec.user.clone().or_else(default_account);
    let home = user
        .as_deref()
        .and_then(|name| Account::find(name).ok().flatten());
    if let Some(home) = home.as_ref().and_then(|account| account.home.to_str()) {
        environment.insert("HOME".to_owned(), home.to_owned());
    }
    let own = [
        ("HOST", address.ip().to_string()),
        ("PORT", address.port().to_string()),
        ("MAINSTAY_SERVICE", spec.name.to_string()),
        ("MAINSTAY_VERSION", planned.version.0.to_string()),
    ];
    environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    environment.extend(needed(planned));
    for (name, value) in &spec.env {
        environment.insert(name.clone(), fill(value, planned, address)?);
    }
    // Last: by these two an instance's processes are found and killed; no service may name another's.
    let marks = [
        (INSTANCE, planned.instance.to_string()),
        (MARK, state.to_owned()),
    ];
    environment.extend(marks.map(|(name, value)| (name.to_owned(), value)));
    let directory = PathBuf::from(&spec.dir);
    let (program, arguments) = command(&spec.exec, planned, address, &directory)?;
    Ok(Launch {
        program,
        arguments,
        environment,
        directory,
        user,
    })
}

/// Where the services are that it needs, of those that have an address: `PAYMENTS_ADDRESS`,
/// `PAYMENTS_HOST` and `PAYMENTS_PORT`. What its file sets comes after, and so stands.
fn needed(planned: &PlannedInstance) -> impl Iterator<Item = (String, String)> {
    let needs = planned.spec.needs.iter();
    let found = needs.filter_map(|name| Some((name, planned.addresses.get(name)?)));
    found.flat_map(|(name, address)| {
        let name = name.as_str().to_ascii_uppercase().replace('-', "_");
        [
            (format!("{name}_ADDRESS"), address.to_string()),
            (format!("{name}_HOST"), address.ip().to_string()),
            (format!("{name}_PORT"), address.port().to_string()),
        ]
    })
}

/// The account of a service that names none; `None`: that of Mainstay.
fn default_account() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let [own, everywhere] = DEFAULT_ACCOUNTS;
    let there = matches!(Account::find(own), Ok(Some(_)));
    Some(if there { own } else { everywhere }.to_owned())
}

/// A probe's program: in the instance's directory, with its account and environment.
pub(crate) fn probe(
    exec: &[Template],
    planned: &PlannedInstance,
    address: SocketAddr,
    instance: &Launch,
) -> Result<Launch, AddressUnknown> {
    let (program, arguments) = command(exec, planned, address, &instance.directory)?;
    Ok(Launch {
        program,
        arguments,
        ..instance.clone()
    })
}

/// What stands in the environment of everything that this instance of this state directory starts.
pub(crate) fn marks_of(instance: &str, state: &str) -> [String; 2] {
    [format!("{INSTANCE}={instance}"), format!("{MARK}={state}")]
}

/// What stands in the environment of everything that the instance starts.
pub(crate) fn marks(launch: &Launch) -> Vec<String> {
    let mark = |name: &str| {
        launch
            .environment
            .get(name)
            .map(|value| format!("{name}={value}"))
    };
    [INSTANCE, MARK].into_iter().filter_map(mark).collect()
}

/// The account that `launch` names.
pub(crate) fn account(launch: &Launch) -> Result<Option<Account>, AccountError> {
    let Some(name) = launch.user.clone() else {
        return Ok(None);
    };
    match Account::find(&name) {
        Ok(Some(account)) => Ok(Some(account)),
        Ok(None) => Err(AccountError::Unknown { name }),
        Err(source) => Err(AccountError::Lookup { name, source }),
    }
}

/// The process to start, without its output.
pub(crate) fn spawn<'a>(launch: &Launch, account: Option<Account>) -> Spawn<'a> {
    let mut spawn = Spawn::new(&launch.program)
        .arguments(&launch.arguments)
        .directory(&launch.directory);
    for (name, value) in &launch.environment {
        spawn = spawn.variable(name, value);
    }
    // Whoever is root already has nothing to gain.
    let rights = match &account {
        Some(account) if account.uid == 0 => Rights::MayGrow,
        Some(_) | None => Rights::NeverGrow,
    };
    spawn = spawn.umask(UMASK).rights(rights);
    match account {
        Some(account) => spawn.account(account),
        None => spawn,
    }
}

/// What a failure to start means to the user.
pub(crate) fn failure(program: &Path, error: &SpawnError) -> StartFailure {
    let number = |source: &io::Error| source.raw_os_error().unwrap_or_default();
    let (step, source) = match error {
        SpawnError::Nul { .. } => return StartFailure::System(Errno::INVAL.raw_os_error()),
        SpawnError::Prepare { source, .. } => return StartFailure::System(number(source)),
        SpawnError::Step { step, source, .. } => (*step, source),
    };
    match step {
        Step::User => StartFailure::User,
        Step::Directory => StartFailure::Directory,
        Step::Program => program_failure(program, Errno::from_io_error(source)),
        Step::Place | Step::Cgroup | Step::Descriptors | Step::Life => {
            StartFailure::System(number(source))
        }
    }
}

/// The directory that keeps the default account from a service that names no account, and so could
/// be meant for another one; `None`: the failure has another cause.
pub(crate) fn shut_out(spec: &AttemptSpec, failure: StartFailure) -> Option<PathBuf> {
    let launch = &spec.launch;
    if spec.planned.spec.user.is_some() {
        return None;
    }
    let account = account(launch).ok()??;
    match failure {
        StartFailure::Directory => account.barrier(&launch.directory),
        StartFailure::ProgramNotExecutable => account.barrier(&launch.program),
        // A bare name is looked up as the account, which passes over what it may not enter.
        StartFailure::ProgramNotFound => {
            let path = launch.environment.get("PATH")?;
            let found = env::split_paths(path)
                .map(|directory| directory.join(&launch.program))
                .find(|candidate| candidate.is_file())?;
            account.barrier(&found)
        }
        StartFailure::NotAProgram
        | StartFailure::User
        | StartFailure::ShutOut
        | StartFailure::Limit { .. }
        | StartFailure::SecretMissing
        | StartFailure::SecretsAway
        | StartFailure::SecretLocked
        | StartFailure::NoFreePort
        | StartFailure::StateDirectory
        | StartFailure::System(_) => None,
    }
}

fn program_failure(program: &Path, errno: Option<Errno>) -> StartFailure {
    match errno {
        // The file is there: what is missing is its interpreter.
        Some(Errno::NOENT) if program.is_absolute() && program.exists() => {
            StartFailure::NotAProgram
        }
        Some(Errno::NOENT | Errno::NOTDIR) => StartFailure::ProgramNotFound,
        Some(Errno::ACCESS | Errno::PERM) => StartFailure::ProgramNotExecutable,
        Some(Errno::NOEXEC | Errno::LIBBAD) => StartFailure::NotAProgram,
        other => StartFailure::System(other.map_or(0, Errno::raw_os_error)),
    }
}

fn command(
    exec: &[Template],
    planned: &PlannedInstance,
    address: SocketAddr,
    directory: &Path,
) -> Result<(PathBuf, Vec<String>), AddressUnknown> {
    let mut words = Vec::new();
    for template in exec {
        words.push(fill(template, planned, address)?);
    }
    let arguments = words.split_off(1.min(words.len()));
    // A specification is checked to have a program; an empty name is not found.
    let program = resolve(words.first().map_or("", String::as_str), directory);
    Ok((program, arguments))
}

fn fill(
    template: &Template,
    planned: &PlannedInstance,
    address: SocketAddr,
) -> Result<String, AddressUnknown> {
    let filled = template.fill(address, |service| planned.addresses.get(service).copied());
    filled.map_err(|service| AddressUnknown {
        service: service.clone(),
    })
}
