//! The listening sockets that the supervisor holds for its processes, by name: made when a process
//! that needs them is first started, and the same for each of its successors.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use mainstay_kernel::Spawn;
use mainstay_kernel::hand::{self, EVERYTHING};
use socket2::Socket;

use super::names::NameSockets;
use super::record::Addresses;
use super::settings::{Settings, is_met};
use super::sockets::{self, AMQP, AMQPS, API_TCP, API_UNIX, ENTRY, IfTaken, STATS};
use crate::command::API_SOCKET;

/// The sockets.
#[derive(Debug, Default)]
pub(super) struct Listening {
    gateway: Vec<Bound>,
    api: Option<(OwnedFd, Socket)>,
    pub(super) names: Option<NameSockets>,
    broker: Vec<Socket>,
    broker_tls: Vec<Socket>,
}

/// What listens elsewhere than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Nothing,
    /// Clients enter elsewhere, which the control centre shows.
    Entry,
    Others,
}

/// The sockets of one address.
#[derive(Debug)]
struct Bound {
    name: String,
    address: SocketAddr,
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
            let (if_taken, option) = (settings.stats_if_taken, settings.options.stats);
            let socket = sockets::bind_stats(address, if_taken, option)?;
            let address = sockets::local_address(&socket)?;
            self.gateway.push(Bound {
                name: STATS.to_owned(),
                address,
                sockets: vec![socket],
            });
            settings.addresses.stats = Some(address);
            // Its successors listen there, too.
            settings.stats_if_taken = IfTaken::Refuse;
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

    /// Makes the sockets at which the agent answers names, if it does, unless they are there.
    pub(super) fn for_agent(&mut self, settings: &mut Settings) -> anyhow::Result<()> {
        if let Some(address) = settings.addresses.names
            && self.names.is_none()
        {
            let sockets = NameSockets::bind(address, settings.options.names)?;
            settings.addresses.names = Some(sockets.address);
            self.names = Some(sockets);
        }
        Ok(())
    }

    /// Makes the broker's sockets, unless they are there.
    pub(super) fn for_broker(&mut self, settings: &mut Settings) -> anyhow::Result<()> {
        if let Some(address) = settings.addresses.broker
            && self.broker.is_empty()
        {
            let (if_taken, option) = (settings.broker_if_taken, settings.options.broker);
            self.broker = sockets::bind_broker(address, if_taken, option)?;
            settings.addresses.broker = Some(sockets::local_address(&self.broker[0])?);
            // Its successors listen there, too.
            settings.broker_if_taken = IfTaken::Refuse;
        }
        if let Some(address) = settings.addresses.broker_tls
            && self.broker_tls.is_empty()
        {
            let option = settings.options.broker_tls;
            self.broker_tls = sockets::bind_broker(address, IfTaken::Refuse, option)?;
            settings.addresses.broker_tls = Some(sockets::local_address(&self.broker_tls[0])?);
        }
        Ok(())
    }

    /// Hands the broker's sockets on.
    pub(super) fn pass_to_broker<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        let sockets = self.broker.iter();
        let spawn = sockets.fold(spawn, |spawn, socket| spawn.pass(AMQP, socket.as_fd()));
        let sockets = self.broker_tls.iter();
        sockets.fold(spawn, |spawn, socket| spawn.pass(AMQPS, socket.as_fd()))
    }

    /// Whether the gateway's sockets are held here: not so after the adoption of one.
    pub(super) fn has_gateway(&self) -> bool {
        self.bound(ENTRY).is_some()
    }

    /// Takes the gateway's sockets from the gateway that has them.
    pub(super) fn take_back(&mut self, hand: &Path) -> anyhow::Result<()> {
        let context = || {
            format!(
                "cannot take the sockets from the gateway at `{}`",
                hand.display()
            )
        };
        let taken = hand::ask(hand, EVERYTHING).with_context(context)?;
        for (name, socket) in taken {
            if name != ENTRY && name != STATS {
                // A service address, which gateways hand to one another.
                continue;
            }
            let socket = Socket::from(socket);
            let address = sockets::local_address(&socket)?;
            match self.gateway.iter_mut().find(|bound| bound.name == name) {
                Some(bound) => bound.sockets.push(socket),
                None => self.gateway.push(Bound {
                    name,
                    address,
                    sockets: vec![socket],
                }),
            }
        }
        anyhow::ensure!(
            self.has_gateway(),
            "the gateway offers no socket of its entry"
        );
        Ok(())
    }

    /// Listens where it is wanted now; all or nothing. Whoever has the old sockets keeps them.
    pub(super) fn move_gateway(
        &mut self,
        wanted: Addresses,
        settings: &mut Settings,
    ) -> anyhow::Result<Moved> {
        let mut moved = Self::default();
        let options = settings.options;
        let mut addresses = settings.addresses;
        let entry = self.bound(ENTRY);
        let entry_stays = entry.is_some_and(|bound| is_met(wanted.entry, bound.address));
        if !entry_stays {
            let workers = entry.map_or(settings.workers, |bound| bound.sockets.len());
            addresses.entry = moved.bind(ENTRY, wanted.entry, workers, options.entry)?;
        }
        let stats = self.bound(STATS).map(|bound| bound.address);
        let stats_stay = match (wanted.stats, stats) {
            (None, None) => true,
            (Some(wanted), Some(bound)) => is_met(wanted, bound),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !stats_stay {
            addresses.stats = match wanted.stats {
                Some(address) => Some(moved.bind(STATS, address, 1, options.stats)?),
                None => None,
            };
        }
        if entry_stays && stats_stay {
            return Ok(Moved::Nothing);
        }
        self.gateway.retain(|bound| {
            (bound.name == ENTRY && entry_stays) || (bound.name == STATS && stats_stay)
        });
        self.gateway.append(&mut moved.gateway);
        settings.addresses = addresses;
        Ok(if entry_stays {
            Moved::Others
        } else {
            Moved::Entry
        })
    }

    /// Closes the gateway's sockets, and so their queues.
    pub(super) fn close_gateway(&mut self) {
        self.gateway.clear();
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
            address,
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

    /// Hands on the sockets at which names are answered.
    pub(super) fn pass_to_agent<'a>(&'a self, spawn: Spawn<'a>) -> Spawn<'a> {
        let names = self.names.iter();
        names.fold(spawn, |spawn, names| names.pass(spawn))
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
