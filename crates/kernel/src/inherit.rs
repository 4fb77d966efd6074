//! Descriptors that a parent handed on, by name.
//!
//! The parent says in `MAINSTAY_FDS` which number means what: `entry=3,entry=4,api=5`. A name may
//! stand more than once. See [`crate::Spawn::pass`] for the other side.
#![expect(
    unsafe_code,
    reason = "taking ownership of a descriptor that is known by its number"
)]

use std::env;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The environment variable.
pub const VARIABLE: &str = "MAINSTAY_FDS";

/// Why inherited descriptors could not be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InheritError {
    /// The variable does not read `NAME=NUMBER,...`.
    #[error("`{VARIABLE}` has an entry `{entry}`; expected NAME=NUMBER with a number from 3 on")]
    Entry {
        /// What stands there.
        entry: String,
    },
    /// A number stands twice.
    #[error("`{VARIABLE}` names descriptor {number} twice")]
    Twice {
        /// Which.
        number: RawFd,
    },
    /// The descriptor is not open, or was opened by this process itself.
    #[error("`{VARIABLE}` names descriptor {number} as `{name}`, which was not inherited")]
    NotInherited {
        /// Its name.
        name: String,
        /// Its number.
        number: RawFd,
    },
    /// They were taken before.
    #[error("the inherited descriptors were taken already")]
    Taken,
}

/// Takes the descriptors that the parent handed on, once; none if it handed on none. They are not
/// handed on to children by accident.
///
/// A descriptor that this process opened itself is refused: everything in this program opens them
/// with `CLOEXEC`, and what was inherited does not have it.
pub fn take() -> Result<Vec<(String, OwnedFd)>, InheritError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(InheritError::Taken);
    }
    let announced = parse(&env::var(VARIABLE).unwrap_or_default())?;
    announced
        .into_iter()
        .map(|(name, number)| adopt(name, number))
        .collect()
}

fn adopt(name: String, number: RawFd) -> Result<(String, OwnedFd), InheritError> {
    // SAFETY: only used for two `fcntl` calls, which refuse a number that is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let inherited = fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC));
    if !inherited || fcntl_setfd(fd, FdFlags::CLOEXEC).is_err() {
        return Err(InheritError::NotInherited { name, number });
    }
    // SAFETY: it is open, our parent made it for us, nobody in this process opened it (it had no
    // CLOEXEC), and it is taken once: from now on it has the flag.
    Ok((name, unsafe { OwnedFd::from_raw_fd(number) }))
}

/// The variable's value for descriptors with these names, numbered from 3 on.
pub(crate) fn announce<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let entries: Vec<String> = (3..)
        .zip(names)
        .map(|(number, name)| format!("{name}={number}"))
        .collect();
    entries.join(",")
}

fn parse(text: &str) -> Result<Vec<(String, RawFd)>, InheritError> {
    let mut found: Vec<(String, RawFd)> = Vec::new();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let bad = || InheritError::Entry {
            entry: entry.to_owned(),
        };
        let (name, number) = entry.split_once('=').ok_or_else(bad)?;
        let number: RawFd = number.parse().map_err(|_| bad())?;
        if name.is_empty() || number < 3 {
            return Err(bad());
        }
        if found.iter().any(|(_, other)| *other == number) {
            return Err(InheritError::Twice { number });
        }
        found.push((name.to_owned(), number));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn what_was_announced_is_read_back() {
        let text = announce(["entry", "entry", "api"].into_iter());
        assert_eq!(text, "entry=3,entry=4,api=5");
        assert_eq!(parse(&text).unwrap()[2], ("api".to_owned(), 5));
        assert_eq!(parse("").unwrap(), Vec::new());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for entry in ["api", "api=x", "=3", "api=2", "api=-1"] {
            assert_eq!(
                parse(entry),
                Err(InheritError::Entry {
                    entry: entry.to_owned()
                })
            );
        }
        assert_eq!(parse("a=3,b=3"), Err(InheritError::Twice { number: 3 }));
    }

    #[test]
    fn a_descriptor_that_was_opened_here_is_refused_and_an_inherited_one_is_closed_on_exec_again() {
        let (own, _other) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let number = own.as_raw_fd();
        assert!(matches!(
            adopt("own".into(), number),
            Err(InheritError::NotInherited { .. })
        ));
        assert!(matches!(
            adopt("shut".into(), 900),
            Err(InheritError::NotInherited { .. })
        ));

        let (inherited, _other) = rustix::pipe::pipe().unwrap();
        let (_, fd) = adopt("inherited".into(), inherited.into_raw_fd()).unwrap();
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
    }
}
