//! Where names are answered: the sockets that the supervisor holds for the agent, and what the agent is
//! told beside.
//!
//! While the agent is away, queries wait in them, and the next agent answers. Port 53 needs a right that
//! the agent so never has to have by itself.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use mainstay_api::node::Names;
use mainstay_kernel::Spawn;
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use super::family::{Family, Member};
use super::kind::Kind;
use super::settings::{Settings, is_met};
use super::sockets::{self, BACKLOG, NAMES_TCP, NAMES_UDP};
use crate::arguments::{NetworkList, ServerList};
use crate::output;

/// How often a free port is sought that is free for TCP and for UDP.
const TRIES: usize = 20;

/// Both sockets of one address.
#[derive(Debug)]
pub(super) struct NameSockets {
    pub(super) address: SocketAddr,
    udp: Socket,
    tcp: Socket,
}

impl NameSockets {
    /// Makes them; `option` is what the user may change.
    pub(super) fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Self> {
        let mut left = TRIES;
        loop {
            left -= 1;
            match Self::try_bind(address) {
                Ok(sockets) => return Ok(sockets),
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && address.port() == 0
                        && left > 0 => {}
                Err(error) => return Err(sockets::explain(address, option, &error).into()),
            }
        }
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = bound(address, Type::STREAM)?;
        tcp.listen(BACKLOG)?;
        let address = tcp.local_addr()?.as_socket().unwrap_or(address);
        let udp = bound(address, Type::DGRAM)?;
        Ok(Self { address, udp, tcp })
    }

    /// Hands both on.
    pub(super) fn pass<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        spawn
            .pass(NAMES_UDP, self.udp.as_fd())
            .pass(NAMES_TCP, self.tcp.as_fd())
    }
}

fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let is_stream = kind == Type::STREAM;
    let protocol = if is_stream {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if is_stream {
        // For UDP it would let another program take a share.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            // An address of the services' range, or a floating one, comes after us.
            if address.is_ipv4() {
                socket.set_freebind_v4(true)?;
            } else {
                socket.set_freebind_v6(true)?;
            }
            socket.bind(&address.into())?;
            if is_stream {
                output::warn(format_args!(
                    "warning: this machine has no address {} yet; names are answered there once it has",
                    address.ip()
                ));
            }
        }
        bound => bound?,
    }
    Ok(socket)
}

/// What the agent is told of names.
pub(super) fn arguments<'a>(names: &Names, mut spawn: Spawn<'a>) -> Spawn<'a> {
    if let Some(upstream) = &names.upstream {
        let servers = ServerList(upstream.clone()).to_string();
        spawn = spawn.arguments(["--names-upstream", servers.as_str()]);
    }
    if !names.allow.is_empty() {
        let networks = NetworkList(names.allow.clone()).to_string();
        spawn = spawn.arguments(["--names-allow", networks.as_str()]);
    }
    spawn
}

/// Sockets that are wanted and not in force yet.
pub(super) enum NamesWanted {
    /// All is as it was.
    AsBefore,
    /// With the sockets that are there.
    Otherwise,
    /// At another address, or nowhere.
    Elsewhere(Option<NameSockets>),
}

impl Family {
    /// Makes what changed settings of names need, without putting it in force.
    pub(super) fn prepare_names(&self, wanted: &Settings) -> anyhow::Result<NamesWanted> {
        if wanted.names == self.settings.names {
            return Ok(NamesWanted::AsBefore);
        }
        let Some(names) = &wanted.names else {
            return Ok(NamesWanted::Elsewhere(None));
        };
        let now = self.settings.addresses.names;
        if now.is_some_and(|bound| is_met(names.listen, bound)) {
            return Ok(NamesWanted::Otherwise);
        }
        let sockets = NameSockets::bind(names.listen, wanted.options.names)?;
        Ok(NamesWanted::Elsewhere(Some(sockets)))
    }

    /// Puts it in force: the agent ends, and the next one, in a moment, has it. Instances go on, and
    /// queries wait in the sockets.
    pub(super) fn change_names(
        &mut self,
        prepared: NamesWanted,
        wanted: Option<Names>,
    ) -> anyhow::Result<()> {
        match prepared {
            NamesWanted::AsBefore => return Ok(()),
            NamesWanted::Otherwise => {}
            NamesWanted::Elsewhere(sockets) => {
                self.settings.addresses.names = sockets.as_ref().map(|sockets| sockets.address);
                self.listening.names = sockets;
            }
        }
        self.settings.names = wanted;
        output::warn("where and how names are answered changed; another agent takes over");
        let agent = |member: &Member| member.kind == Kind::Agent;
        match self.members.iter().position(agent) {
            Some(index) => self.signal(index, Signal::TERM),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    #[test]
    fn both_sockets_have_one_address_which_nobody_else_gets() -> anyhow::Result<()> {
        let first = NameSockets::bind("127.0.0.1:0".parse()?, "--names")?;
        assert_ne!(first.address.port(), 0);
        let second = NameSockets::bind(first.address, "--names").expect_err("it is taken");
        let failure = second.downcast_ref::<Failure>().expect("it is explained");
        let remedy = failure.remedy.as_deref().unwrap_or_default();
        assert!(remedy.contains("another --names"), "{remedy}");
        let udp = std::net::UdpSocket::bind(first.address);
        assert_eq!(
            udp.map_err(|error| error.kind()).err(),
            Some(io::ErrorKind::AddrInUse)
        );
        Ok(())
    }

    #[test]
    fn an_address_that_the_machine_gets_later_can_be_listened_on() -> anyhow::Result<()> {
        let sockets = NameSockets::bind("192.0.2.53:0".parse()?, "--names")?;
        assert_eq!(sockets.address.ip().to_string(), "192.0.2.53");
        Ok(())
    }
}
