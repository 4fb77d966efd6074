//! What systemd is told of a service of `Type=notify` (sd_notify(3)): a datagram to the socket that
//! it names in the environment. Elsewhere there is none, and nothing happens.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::output;

/// Where we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// All listens and runs.
    Ready,
    /// The end has begun.
    Stopping,
}

/// Tells it.
pub(super) fn notify(stage: Stage) {
    let text = match stage {
        Stage::Ready => "READY=1",
        Stage::Stopping => "STOPPING=1",
    };
    if let Err(error) = send(text) {
        output::warn(format_args!("warning: cannot notify systemd: {error}"));
    }
}

fn send(text: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A queue that is full must not hold us up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(|_| ())
}
