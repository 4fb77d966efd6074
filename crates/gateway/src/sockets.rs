//! Listening sockets: how they are made, and what connections inherit from them.

use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use tokio::net::TcpStream;

use crate::door;
use crate::limits::{BACKLOG, TCP_KEEPALIVE_AFTER, TCP_KEEPALIVE_EVERY};

/// Opens one listening socket on `address` for each of `count` workers.
///
/// `SO_REUSEPORT` would also let the gateway of another Mainstay share the address, each getting
/// half of the other's requests. So it is looked first whether anybody listens there. Whoever listens
/// on all addresses, as our own entry may, is not in the way: the more exact address wins.
pub(crate) fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if let SocketAddr::V4(address) = address
        && is_listened_on(address, &fs::read_to_string("/proc/net/tcp")?)
    {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    (0..count).map(|_| listen_shared(address)).collect()
}

/// Whether somebody listens on exactly this address, by the kernel's table (`proc_net_tcp(5)`).
fn is_listened_on(address: SocketAddrV4, table: &str) -> bool {
    const LISTEN: &str = "0A";
    // The kernel prints the four bytes as one number of the machine.
    let ip = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!("{ip:08X}:{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(wanted.as_str()) && fields.nth(1) == Some(LISTEN)
    })
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn listen_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what a worker needs. On Linux accepted connections inherit these options, which spares
/// system calls for each of them.
pub(crate) fn prepare(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // Whoever had it before may have died while it left an address.
    door::open(&SockRef::from(listener))?;
    set_options(&SockRef::from(listener))
}

/// The same for a connection that we make.
pub(crate) fn prepare_outgoing(stream: &TcpStream) -> io::Result<()> {
    set_options(&SockRef::from(stream))
}

fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE_AFTER)
        .with_interval(TCP_KEEPALIVE_EVERY)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_an_address_and_two_gateways_do_not() {
        let address = (1..=254)
            .map(|host| SocketAddr::from(([127, 77, 0, host], 18_080)))
            .find(|address| TcpListener::bind(address).is_ok())
            .expect("one of them is free");
        let first = listen(address, 2).expect("it is free");
        assert_eq!(first.len(), 2);
        let error = listen(address, 2).expect_err("another listens there");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(listen(address, 1).is_ok());
    }

    #[test]
    fn who_listens_on_all_addresses_is_not_in_the_way() {
        let everywhere = listen(([0, 0, 0, 0], 0).into(), 1).expect("a port is free");
        let port = everywhere[0].local_addr().expect("it listens").port();
        assert!(listen(([127, 77, 1, 1], port).into(), 1).is_ok());
    }
}
