//! The listening sockets. The supervisor makes them and hands them to its processes, so that a
//! process can be replaced while connections wait in the queue.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::Context;
use mainstay_kernel::Account;
use socket2::{Domain, Protocol, Socket, Type};

use crate::outcome::{Failure, Outcome};
use crate::output;

/// The name under which the gateway's sockets are handed over.
pub(crate) const ENTRY: &str = "entry";
/// The name under which the API's unix socket is handed over.
pub(crate) const API_UNIX: &str = "api";
/// The name under which the API's loopback port is handed over.
pub(crate) const API_TCP: &str = "api-tcp";

/// The name under which the socket for names by UDP is handed over.
pub(crate) const NAMES_UDP: &str = "names-udp";
/// The name under which the one for names by TCP is.
pub(crate) const NAMES_TCP: &str = "names-tcp";

/// The name under which the broker's sockets are handed over.
pub(crate) const AMQP: &str = "amqp";
/// And those with TLS.
pub(crate) const AMQPS: &str = "amqps";

/// The name under which the socket for statistics is handed over.
pub(crate) const STATS: &str = "stats";

/// Where statistics are shown if nobody says otherwise: as HAProxy's often are.
pub(crate) const STATS_USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8888);

/// How many connections may wait to be accepted. The kernel cuts it to `net.core.somaxconn`, which
/// is 4096 by default; a shorter queue would refuse clients while a gateway is replaced.
pub(super) const BACKLOG: i32 = 4096;

/// Listens on `address` with one socket per worker: the kernel spreads the connections. `option` is
/// what the user may change.
pub(crate) fn bind_shared(
    address: SocketAddr,
    workers: usize,
    option: &str,
) -> anyhow::Result<Vec<Socket>> {
    if address.port() != 0 {
        refuse_if_taken(address, option)?;
    }
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = tcp_socket(address)
            .and_then(|socket| socket.set_reuse_port(true).map(|()| socket))
            .and_then(|socket| listen(socket, address))
            .map_err(|error| explain(address, option, &error))?;
        address = local_address(&socket)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Listens on the API's loopback port; `option` is what the user may change.
pub(crate) fn bind_api_tcp(address: SocketAddr, option: &str) -> anyhow::Result<Socket> {
    if !address.ip().is_loopback() {
        let message = format!("the API listens on loopback only, not on {address}");
        let failure = Failure::new(Outcome::WrongInput, message);
        return Err(failure
            .remedy(format!("choose an {option} of 127.0.0.1"))
            .into());
    }
    tcp_socket(address)
        .and_then(|socket| listen(socket, address))
        .map_err(|error| explain(address, option, &error).into())
}

/// What becomes of an address that another program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfTaken {
    /// It is told, and nothing starts.
    Refuse,
    /// Nobody asked for that address: a free port is taken, and told.
    AnyPort,
}

/// Listens for those who look at statistics, with one socket: people need no spreading.
pub(crate) fn bind_stats(
    address: SocketAddr,
    if_taken: IfTaken,
    option: &str,
) -> anyhow::Result<Socket> {
    let one = |address| -> anyhow::Result<Socket> {
        let mut sockets = bind_shared(address, 1, option)?;
        sockets.pop().context("one was asked for")
    };
    if if_taken == IfTaken::Refuse || refuse_if_taken(address, option).is_ok() {
        return one(address);
    }
    let socket = one(SocketAddr::new(address.ip(), 0))?;
    let found = local_address(&socket)?;
    output::warn(format_args!(
        "another program listens on {address}; statistics are at {found} instead"
    ));
    Ok(socket)
}

/// Listens for the broker's clients: one socket, since one thread serves them, and for `127.0.0.1` one more at `::1`, which
/// `localhost` is for many of them.
pub(crate) fn bind_broker(
    address: SocketAddr,
    if_taken: IfTaken,
    option: &str,
) -> anyhow::Result<Vec<Socket>> {
    if if_taken == IfTaken::Refuse {
        return bind_both(address, option);
    }
    bind_both(address, option).or_else(|_| {
        let sockets = bind_both(SocketAddr::new(address.ip(), 0), option)?;
        let found = local_address(&sockets[0])?;
        output::warn(format_args!(
            "another program listens on {address}; the broker is at {found} instead, or where {option} says"
        ));
        Ok(sockets)
    })
}

fn bind_both(address: SocketAddr, option: &str) -> anyhow::Result<Vec<Socket>> {
    /// A port that is free for one may be taken for the other.
    const TRIES: usize = 20;
    let one = |address: SocketAddr| tcp_socket(address).and_then(|socket| listen(socket, address));
    let mut left = TRIES;
    loop {
        left -= 1;
        let first = one(address).map_err(|error| explain(address, option, &error))?;
        let bound = local_address(&first)?;
        if address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            return Ok(vec![first]);
        }
        let twin = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), bound.port());
        match one(twin) {
            Ok(second) => return Ok(vec![first, second]),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if address.port() != 0 || left == 0 {
                    return Err(explain(twin, option, &error).into());
                }
            }
            // A machine without IPv6.
            Err(_) => return Ok(vec![first]),
        }
    }
}

/// The number of the group that `option` names.
pub(crate) fn group(name: &str, option: &str) -> anyhow::Result<u32> {
    let found = Account::group(name).context("cannot read `/etc/group`")?;
    found.ok_or_else(|| {
        let failure = Failure::new(
            Outcome::WrongInput,
            format!("there is no group `{name}` on this machine"),
        );
        failure
            .remedy(format!(
                "make it with `groupadd`, or choose another {option}"
            ))
            .into()
    })
}

/// Listens on the API's unix socket, which only its owner may open, and the members of `group`.
/// They may go through the state directory and see nothing else of it. Who opened the socket is
/// looked at again by whoever answers.
pub(crate) fn bind_api_unix(path: &Path, group: Option<u32>) -> anyhow::Result<OwnedFd> {
    let context = || format!("cannot listen on `{}`", path.display());
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(context);
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(context)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).with_context(context)?;
    if let (Some(group), Some(directory)) = (group, path.parent()) {
        open_to_group(path, 0o060, group)?;
        open_to_group(directory, 0o010, group)?;
    }
    listener.set_nonblocking(true).with_context(context)?;
    Ok(listener.into())
}

fn open_to_group(path: &Path, bits: u32, group: u32) -> anyhow::Result<()> {
    let context = || format!("cannot give `{}` to group {group}", path.display());
    chown(path, None, Some(group)).with_context(context)?;
    let mode = std::fs::metadata(path).with_context(context)?.mode() | bits;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).with_context(context)
}

/// The address on which a socket listens, with the port that the kernel chose.
pub(crate) fn local_address(socket: &Socket) -> anyhow::Result<SocketAddr> {
    let address = socket
        .local_addr()
        .context("cannot ask a socket for its address")?;
    address
        .as_socket()
        .context("a TCP socket has an IP address")
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address == SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), address.port()) {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(socket: Socket, address: SocketAddr) -> io::Result<Socket> {
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Without this look, `SO_REUSEPORT` would let two of our own gateways share a port, each getting
/// half of the other's clients.
fn refuse_if_taken(address: SocketAddr, option: &str) -> anyhow::Result<()> {
    tcp_socket(address)
        .and_then(|socket| socket.bind(&address.into()))
        .map_err(|error| explain(address, option, &error).into())
}

pub(super) fn explain(address: SocketAddr, option: &str, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens there (`ss -lntup 'sport = :{}'` shows which); stop it, or \
             choose another {option}",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "this machine has no address {}; choose another {option}",
                address.ip()
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE; choose \
                 another {option}"
            )
        }
        _ => format!("choose another {option}"),
    };
    Failure::new(
        Outcome::Failed,
        format!("cannot listen on {address}: {error}"),
    )
    .remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gateways_do_not_share_a_port_by_accident() -> anyhow::Result<()> {
        let first = bind_shared("127.0.0.1:0".parse()?, 2, "--entry")?;
        let address = local_address(&first[0])?;
        assert_eq!(local_address(&first[1])?, address);
        let second = bind_shared(address, 2, "--entry").expect_err("the port is taken");
        let failure = second.downcast_ref::<Failure>().expect("it is explained");
        assert!(
            failure
                .remedy
                .as_ref()
                .is_some_and(|text| text.contains("another program"))
        );
        drop(first);
        assert!(bind_shared(address, 1, "--entry").is_ok());
        Ok(())
    }

    #[test]
    fn statistics_go_elsewhere_only_if_nobody_said_where_they_must_be() -> anyhow::Result<()> {
        // Held by us, or by whoever else holds it: it is taken.
        let _held = std::net::TcpListener::bind(STATS_USUAL);
        let bind = |if_taken| bind_stats(STATS_USUAL, if_taken, "--stats");
        let elsewhere = local_address(&bind(IfTaken::AnyPort)?)?;
        assert!(elsewhere.ip().is_loopback() && elsewhere != STATS_USUAL);
        let refused = bind(IfTaken::Refuse).expect_err("the port is taken");
        let failure = refused.downcast_ref::<Failure>().expect("it is explained");
        let remedy = failure.remedy.as_deref().unwrap_or_default();
        assert!(remedy.contains("another --stats"), "{remedy}");
        Ok(())
    }
}
