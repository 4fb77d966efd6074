//! The listening sockets that the supervisor holds for its processes, by name: made when a process
//! that needs them is first started, and the same for each of its successors.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use mainstay_kernel::Spawn;
use socket2::Socket;

use super::settings::Settings;
use super::sockets::{self, API_TCP, API_UNIX, ENTRY, STATS};
use crate::command::API_SOCKET;

/// The sockets.
#[derive(Debug, Default)]
pub(super) struct Listening {
    gateway: Vec<Bound>,
    api: Option<(OwnedFd, Socket)>,
}

/// The sockets of one address.
#[derive(Debug)]
struct Bound {
    name: String,
    sockets: Vec<Socket>,
}

impl Listening {
    /// Makes the gateway's sockets, unless they are there. `settings` learns the ports that the
    /// kernel picked.
    pub(super) fn for_gateway(&mut self, settings: &mut Settings) -> anyhow::Result<()> {
        let workers = settings.workers;
        if self.bound(ENTRY).is_none() {
            let address = settings.addresses.entry;
            settings.addresses.entry =
                self.bind(ENTRY, address, workers, settings.options.entry)?;
        }
        if let Some(address) = settings.addresses.stats
            && self.bound(STATS).is_none()
        {
            // One: a page that people look at needs no spreading.
            let bound = self.bind(STATS, address, 1, settings.options.stats)?;
            settings.addresses.stats = Some(bound);
        }
        Ok(())
    }

    /// Makes the sockets of the API, unless they are there.
    pub(super) fn for_server(&mut self, settings: &mut Settings) -> anyhow::Result<()> {
        if self.api.is_some() {
            return Ok(());
        }
        let tcp = sockets::bind_api_tcp(settings.addresses.api, settings.options.api)?;
        settings.addresses.api = sockets::local_address(&tcp)?;
        let socket = settings.state.join(API_SOCKET);
        let unix = sockets::bind_api_unix(&socket, settings.api_group)?;
        self.api = Some((unix, tcp));
        Ok(())
    }

    fn bound(&self, name: &str) -> Option<&Bound> {
        self.gateway.iter().find(|bound| bound.name == name)
    }

    fn bind(
        &mut self,
        name: &str,
        address: SocketAddr,
        count: usize,
        option: &str,
    ) -> anyhow::Result<SocketAddr> {
        let sockets = sockets::bind_shared(address, count, option)?;
        let address = sockets::local_address(&sockets[0])?;
        self.gateway.push(Bound {
            name: name.to_owned(),
            sockets,
        });
        Ok(address)
    }

    /// Hands the gateway's sockets on.
    pub(super) fn pass_to_gateway<'a>(&'a self, mut spawn: Spawn<'a>) -> Spawn<'a> {
        for bound in &self.gateway {
            for socket in &bound.sockets {
                spawn = spawn.pass(bound.name.clone(), socket.as_fd());
            }
        }
        spawn
    }

    /// Hands the API's sockets on.
    pub(super) fn pass_to_server<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        self.api.iter().fold(spawn, |spawn, (unix, tcp)| {
            spawn
                .pass(API_UNIX, unix.as_fd())
                .pass(API_TCP, tcp.as_fd())
        })
    }
}
