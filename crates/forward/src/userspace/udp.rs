//! UDP: a flow is what one client sends to one service address, and what comes back.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::floor::{Floor, InFlight};
use super::limits::{DATAGRAMS_AT_ONCE, FLOW_IDLE, SWEEP_EVERY};
use super::service::Service;

/// What is remembered of a flow. Its socket is closed with it.
struct Flow {
    floor: Rc<Floor>,
    upstream: Rc<UdpSocket>,
    held: Rc<InFlight>,
    state: Rc<State>,
    answers: AbortHandle,
}

#[derive(Debug)]
struct State {
    used: Cell<Instant>,
    /// The instance is not there.
    is_refused: Cell<bool>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
        self.floor.flows.set(self.floor.flows.get() - 1);
    }
}

/// All flows of a service.
struct Flows {
    floor: Rc<Floor>,
    service: Rc<Service>,
    socket: Rc<UdpSocket>,
    by_client: HashMap<SocketAddr, Flow>,
}

/// Until the service is closed.
pub(super) async fn carry(floor: Rc<Floor>, service: Rc<Service>, socket: UdpSocket) {
    let mut flows = Flows {
        floor,
        service,
        socket: Rc::new(socket),
        by_client: HashMap::new(),
    };
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // An error of the socket shows itself when it is read, and is taken away by that.
            _ = flows.socket.readable() => {
                flows.take_datagrams();
                yield_now().await;
            }
            _ = sweep.tick() => flows.sweep(),
        }
    }
}

impl Flows {
    fn take_datagrams(&mut self) {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let floor = Rc::clone(&self.floor);
            let mut datagram = floor.datagram.borrow_mut();
            match self.socket.try_recv_from(&mut datagram) {
                Ok((len, client)) => self.send(client, &datagram[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What a client that is gone was sent came back.
                Err(_) => {}
            }
        }
    }

    /// As with any network, what cannot be sent now is lost.
    fn send(&mut self, client: SocketAddr, datagram: &[u8]) {
        let Some(flow) = self.flow(client) else {
            return;
        };
        flow.state.used.set(Instant::now());
        // Not by tokio, which does not yet know of a new socket that it can be written to.
        match SockRef::from(&*flow.upstream).send(datagram) {
            Ok(len) => {
                let sent = &flow.held.0.sent;
                sent.set(sent.get() + u64::try_from(len).unwrap_or(u64::MAX));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => flow.state.is_refused.set(true),
        }
    }

    /// The client's flow, to an instance that still gets something.
    fn flow(&mut self, client: SocketAddr) -> Option<&Flow> {
        let mut lost = None;
        if let Some(flow) = self.by_client.get(&client) {
            let instance = &flow.held.0;
            let is_good = self.service.leads_to(instance.address)
                && !flow.state.is_refused.get()
                && !*instance.dead.borrow();
            if !is_good {
                lost = Some(instance.address);
                self.by_client.remove(&client);
            }
        }
        if !self.by_client.contains_key(&client) {
            let flow = self.open(client, lost)?;
            self.by_client.insert(client, flow);
        }
        self.by_client.get(&client)
    }

    fn open(&mut self, client: SocketAddr, lost: Option<SocketAddr>) -> Option<Flow> {
        if self.floor.flows.get() >= self.floor.limits.flows {
            self.evict();
        }
        if self.floor.flows.get() >= self.floor.limits.flows {
            return None;
        }
        let other = |one| Some(one) != lost;
        let drawn = self.service.draw(client.ip(), other);
        let to = drawn.or_else(|| self.service.draw(client.ip(), |_| true))?;
        let upstream = match connected(to) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                tracing::debug!(instance = %to, %error, "no flow to it");
                return None;
            }
        };
        let held = Rc::new(InFlight::new(self.floor.instance(to)));
        let state = Rc::new(State {
            used: Cell::new(Instant::now()),
            is_refused: Cell::new(false),
        });
        let answers = Answers {
            floor: Rc::clone(&self.floor),
            socket: Rc::downgrade(&self.socket),
            upstream: Rc::clone(&upstream),
            held: Rc::clone(&held),
            state: Rc::clone(&state),
            client,
        };
        // It ends with the flow, or when the instance is not there, which the next datagram notices.
        let answers = spawn_local(answers.carry()).abort_handle();
        self.floor.flows.set(self.floor.flows.get() + 1);
        let connections = &self.service.connections;
        connections.set(connections.get() + 1);
        Some(Flow {
            floor: Rc::clone(&self.floor),
            upstream,
            held,
            state,
            answers,
        })
    }

    /// The one that was silent for longest.
    fn evict(&mut self) {
        let flows = self.by_client.iter();
        let oldest = flows.min_by_key(|(_, flow)| flow.state.used.get());
        if let Some((client, _)) = oldest {
            let client = *client;
            self.by_client.remove(&client);
        }
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.by_client
            .retain(|_, flow| now.duration_since(flow.state.used.get()) < FLOW_IDLE);
    }
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}

/// From the instance to the client.
struct Answers {
    floor: Rc<Floor>,
    /// The service's own, which is closed with it.
    socket: Weak<UdpSocket>,
    upstream: Rc<UdpSocket>,
    held: Rc<InFlight>,
    state: Rc<State>,
    client: SocketAddr,
}

impl Answers {
    async fn carry(self) {
        loop {
            if self.upstream.readable().await.is_err() {
                return;
            }
            for _ in 0..DATAGRAMS_AT_ONCE {
                let mut datagram = self.floor.datagram.borrow_mut();
                match self.upstream.try_recv(&mut datagram) {
                    Ok(len) => self.send(&datagram[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {
                        self.state.is_refused.set(true);
                        return;
                    }
                }
            }
            yield_now().await;
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.state.used.set(Instant::now());
        let received = &self.held.0.received;
        let len = u64::try_from(datagram.len()).unwrap_or(u64::MAX);
        received.set(received.get() + len);
        // As with any network, what cannot be sent now is lost.
        if let Some(socket) = self.socket.upgrade() {
            let socket = SockRef::from(&*socket);
            socket.send_to(datagram, &self.client.into()).ok();
        }
    }
}
