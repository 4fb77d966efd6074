//! Being told of flows as they come and go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{DELETE, Flow, NEW, SUBSYSTEM};
use crate::netlink::socket::{Messages, Socket};

/// `NFNLGRP_CONNTRACK_NEW` and `_DESTROY`, numbers 1 and 3, as bits.
const GROUPS: u32 = 0b101;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A flow began: its first packet went its way.
    Began(Flow),
    /// A flow is over, or was deleted.
    Ended(Flow),
    /// Some were not told, since nobody listened fast enough. What is known of flows is wrong from now
    /// on, and has to be read anew.
    Overrun,
}

impl Event {
    /// Reads all of a datagram; what is neither of TCP nor of UDP is left out.
    pub fn each_of(datagram: &[u8], mut each: impl FnMut(Self)) {
        for message in Messages::of(datagram) {
            let event: fn(Flow) -> Self = match message.kind {
                kind if kind == SUBSYSTEM | NEW => Self::Began,
                kind if kind == SUBSYSTEM | DELETE => Self::Ended,
                _ => continue,
            };
            if let Some(flow) = Flow::read(message.body) {
                each(event(flow));
            }
        }
    }
}

/// Listens to what becomes of the flows of the network namespace in which it was opened. Flows that
/// began before it are told of when they end only if something listened when they began.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
}

impl Events {
    /// Listens from now on. Needs `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open()?;
        socket.join(GROUPS)?;
        Ok(Self { socket })
    }

    /// Hands on what there is, without waiting; wait for the descriptor to become readable.
    pub fn receive(&self, mut each: impl FnMut(Event)) -> io::Result<()> {
        self.socket.receive_waiting(|received| match received {
            Some(datagram) => Event::each_of(datagram, &mut each),
            None => each(Event::Overrun),
        })
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
