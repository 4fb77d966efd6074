//! One supervisor per state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use mainstay_kernel::{Identity, Pidfd};
use rustix::fs::{FlockOperation, flock};

use crate::outcome::{Failure, Outcome};

/// The longest path of a unix socket, from `sockaddr_un` (unix(7)), without its final NUL.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The exclusive right to a state directory, for as long as it is held.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

/// Creates the state directory, readable by its owner alone, and takes the right to it.
pub(crate) fn take(state: &Path) -> anyhow::Result<StateLock> {
    let socket = state.join(crate::command::API_SOCKET);
    if socket.as_os_str().len() > SOCKET_PATH_LEN_MAX {
        let message = format!(
            "the path `{}` is too long for a unix socket",
            socket.display()
        );
        let failure = Failure::new(Outcome::WrongInput, message);
        let remedy = format!(
            "choose a --state directory of at most {} characters",
            SOCKET_PATH_LEN_MAX - 9
        );
        return Err(failure.remedy(remedy).into());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|error| cannot_create(state, &error))?;
    refuse_foreign(state)?;
    let path = state.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open `{}`", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // The number only helps the reader; without it the message is still right.
        file.read_to_string(&mut holder).ok();
        let message = format!(
            "another `mainstay dev` or `mainstay run` (process {}) runs on `{}`",
            holder.trim(),
            state.display()
        );
        let remedy = "use `mainstay up FILE` to change it, stop it with Ctrl-C, or start this one \
                      with another --state, --entry and --api";
        return Err(Failure::new(Outcome::WrongInput, message)
            .remedy(remedy)
            .into());
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(StateLock { _file: file })
}

/// The supervisor that runs on a directory; `None` if none does.
pub(crate) fn holder(state: &Path) -> anyhow::Result<Option<Pidfd>> {
    let path = state.join("lock");
    let context = || format!("cannot look at `{}`", path.display());
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(context)?,
    };
    let is_held = |file: &File| flock(file, FlockOperation::NonBlockingLockShared).is_err();
    if !is_held(&file) {
        return Ok(None);
    }
    let mut number = String::new();
    file.read_to_string(&mut number).with_context(context)?;
    let number: u32 = number.trim().parse().with_context(context)?;
    let identity = Identity::of(number).with_context(context)?;
    let handle = identity.map(|identity| identity.open()).transpose();
    let handle = handle.with_context(context)?.flatten();
    // Still held after the handle was opened: so it is the holder's, and not that of whoever got
    // the number after its end.
    Ok(handle.filter(|_| is_held(&file)))
}

fn cannot_create(state: &Path, error: &io::Error) -> Failure {
    let message = format!(
        "cannot create the state directory `{}`: {error}",
        state.display()
    );
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run as root, or choose another `state` directory, which this account may make"
        }
        _ => "choose another `state` directory",
    };
    Failure::new(Outcome::Failed, message).remedy(remedy)
}

/// Whoever may write into the directory may put a link there, and have us write and run what he
/// likes.
fn refuse_foreign(state: &Path) -> anyhow::Result<()> {
    const OTHERS_WRITE: u32 = 0o002;
    let found = std::fs::metadata(state)
        .with_context(|| format!("cannot use the state directory `{}`", state.display()))?;
    let own = rustix::process::geteuid().as_raw();
    let (wrong, remedy) = if found.uid() != own {
        let wrong = format!(
            "belongs to account {}, and this is account {own}",
            found.uid()
        );
        (
            wrong,
            "run as the account to which it belongs, or choose another --state",
        )
    } else if found.mode() & OTHERS_WRITE != 0 {
        (
            "may be written by everybody".to_owned(),
            "`chmod 700` it, or choose another --state",
        )
    } else {
        return Ok(());
    };
    let message = format!("the state directory `{}` {wrong}", state.display());
    Err(Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::{TempDir, is_root, skip};
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn a_state_directory_that_everybody_may_write_is_refused() -> anyhow::Result<()> {
        let dir = TempDir::new("lock");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))?;
        let refused = take(dir.path()).expect_err("others may write there");
        assert!(refused.to_string().contains("everybody"), "{refused}");
        assert!(!dir.join("lock").exists());
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        take(dir.path()).map(drop)
    }

    #[test]
    fn system_a_state_directory_of_another_account_is_refused() -> anyhow::Result<()> {
        if !is_root() {
            skip("needs root: gives a directory away");
            return Ok(());
        }
        let dir = TempDir::new("lock");
        chown(dir.path(), Some(1234), None)?;
        let refused = take(dir.path()).expect_err("it is another's");
        assert!(refused.to_string().contains("account 1234"), "{refused}");
        Ok(())
    }
}
