//! How many files, sockets among them, this process may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as may be had. For processes with a connection per client alone, since programs that use select(2) break
/// above 1024, and children inherit it.
pub fn raise_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

/// At most so many from now on, for this process and its children. It cannot be raised again without privilege.
pub fn lower_limit(to: u64) -> io::Result<()> {
    let (current, maximum) = (Some(to), Some(to));
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

/// How many there may be now; `None`: any number.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        raise_limit().expect("a process may raise its own");
        assert_eq!(limit(), getrlimit(Resource::Nofile).maximum);
    }
}
