//! A service address: its sockets, and which instance a connection goes to.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6};
use std::rc::Rc;
use std::sync::Arc;

use mainstay_control::forward::{Slots, Spread, Staying};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{JoinHandle, spawn_local};

use super::floor::Floor;
use super::limits::{ACCEPT_PAUSE, BACKLOG};
use super::{session, udp};

/// A service address that is ours.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    spread: RefCell<Shares>,
    /// New connections, and flows of UDP.
    pub(super) connections: Cell<u64>,
    /// Bound for as long as the service is there; listens if it has instances.
    tcp: Socket,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shares {
    spread: Spread,
    /// Where clients stay.
    slots: Option<Slots>,
}

/// What can fail is done, and nothing is changed yet.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Its sockets are as they were.
    Same(Rc<Service>),
    /// It begins to listen.
    Opened {
        service: Rc<Service>,
        listener: TcpListener,
        udp: UdpSocket,
    },
    /// It ceases to.
    Closed(Rc<Service>),
}

impl Prepared {
    pub(super) fn new(
        address: SocketAddr,
        known: Option<Rc<Service>>,
        has_instances: bool,
    ) -> io::Result<Self> {
        let service = match known {
            Some(service) if service.serves() == has_instances => return Ok(Self::Same(service)),
            Some(service) => service,
            None => Rc::new(Service::bind(address)?),
        };
        if !has_instances {
            return Ok(Self::Closed(service));
        }
        let udp = datagrams(address)?;
        service.tcp.listen(BACKLOG)?;
        let listener = TcpListener::from_std(service.tcp.try_clone()?.into());
        match listener {
            Ok(listener) => Ok(Self::Opened {
                service,
                listener,
                udp,
            }),
            Err(error) => {
                service.cease();
                Err(error)
            }
        }
    }

    /// `ended`: tasks that were told to end.
    pub(super) fn open(
        self,
        floor: &Rc<Floor>,
        spread: Spread,
        ended: &mut Vec<JoinHandle<()>>,
    ) -> Rc<Service> {
        match self {
            Self::Same(service) => {
                service.set(spread);
                service
            }
            Self::Opened {
                service,
                listener,
                udp,
            } => {
                service.set(spread);
                // They end with the service, and by nothing else.
                let accept = accept(Rc::clone(floor), Rc::clone(&service), listener);
                let carry = udp::carry(Rc::clone(floor), Rc::clone(&service), udp);
                let tasks = [spawn_local(accept), spawn_local(carry)];
                service.tasks.borrow_mut().extend(tasks);
                service
            }
            Self::Closed(service) => {
                service.set(spread);
                ended.append(&mut service.close());
                service
            }
        }
    }
}

fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(true)?;
        // By a local route all addresses of IPv4 are the host's; for those of IPv6 the kernel wants
        // to be told that this one is meant.
        if is_routed_here(v6) {
            socket.set_freebind_v6(true)?;
        }
    }
    Ok(socket)
}

/// Whether what is sent there stays within the host: then the kernel speaks from loopback, or from the
/// address itself.
fn is_routed_here(address: SocketAddrV6) -> bool {
    let source = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip().is_loopback() || source.ip() == *address.ip())
}

impl Service {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = socket(address, Type::STREAM)?;
        // Connections that an earlier process closed would hold the port for a minute.
        tcp.set_reuse_address(true)?;
        tcp.bind(&address.into())?;
        Ok(Self {
            address,
            spread: RefCell::default(),
            connections: Cell::new(0),
            tcp,
            tasks: RefCell::default(),
        })
    }

    fn set(&self, spread: Spread) {
        let slots = match spread.staying {
            Staying::Free => None,
            Staying::Source => Slots::of(&spread, None),
        };
        *self.spread.borrow_mut() = Shares { spread, slots };
    }

    /// Whether it has instances.
    pub(super) fn serves(&self) -> bool {
        !self.tasks.borrow().is_empty()
    }

    /// Refuses connections from now on, and datagrams when the tasks have ended that it tells to. What is under way
    /// goes on.
    pub(super) fn close(&self) -> Vec<JoinHandle<()>> {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for task in &tasks {
            task.abort();
        }
        self.cease();
        tasks
    }

    /// A listener that is shut down refuses and stays bound, so that nobody else is given its port.
    fn cease(&self) {
        // It may not listen: then it does not have to cease to.
        self.tcp.shutdown(Shutdown::Read).ok();
    }

    /// Whether an instance gets new connections.
    pub(super) fn leads_to(&self, instance: SocketAddr) -> bool {
        let shares = &self.spread.borrow().spread.shares;
        let found = shares.binary_search_by_key(&instance, |share| share.to);
        found.is_ok()
    }

    /// An instance for a client, of those that may be taken.
    pub(super) fn draw(
        &self,
        client: IpAddr,
        may: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let shares = self.spread.borrow();
        if let Some(slots) = &shares.slots {
            let owners = slots.owners();
            let owner = owners[slot_of(client, owners.len())];
            if may(owner) {
                return Some(owner);
            }
        }
        let taken = || shares.spread.shares.iter().filter(|share| may(share.to));
        let total: u64 = taken().map(|share| share.weight).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = fastrand::u64(..total);
        let found = taken().find(|share| {
            let here = drawn < share.weight;
            drawn = drawn.saturating_sub(share.weight);
            here
        });
        found.map(|share| share.to)
    }
}

/// FNV-1a, and the finalizer of splitmix64.
fn slot_of(client: IpAddr, slots: usize) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    match client {
        IpAddr::V4(v4) => eat(&v4.octets()),
        IpAddr::V6(v6) => eat(&v6.octets()),
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 27;
    let slots = u64::try_from(slots.max(1)).unwrap_or(u64::MAX);
    usize::try_from(hash % slots).unwrap_or(0)
}

async fn accept(floor: Rc<Floor>, service: Rc<Service>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                // Full: this one waits, and those behind it in the kernel's queue.
                let Ok(seat) = Arc::clone(&floor.seats).acquire_owned().await else {
                    return;
                };
                service.connections.set(service.connections.get() + 1);
                let session = session::serve(Rc::clone(&floor), Rc::clone(&service), client, from);
                // It owns all that it needs, and its end is nobody's concern but its client's.
                spawn_local(async move {
                    session.await;
                    drop(seat);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(service = %service.address, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
