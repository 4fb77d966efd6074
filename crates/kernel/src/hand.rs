//! Handing open sockets to another process of the same account, over a unix socket (`SCM_RIGHTS`,
//! unix(7)): what a successor takes over without anybody's queue being closed.
//!
//! Who asks sends a name, or [`EVERYTHING`]; who offers answers with a packet for each socket, its
//! name beside it, and a packet that ends the list.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};

/// Asks for all that is offered.
pub const EVERYTHING: &str = "*";

/// Ends the list.
const END: &[u8] = b".";

/// The longest name: an address in brackets with its port, or the name of a listener.
const NAME_LEN_MAX: usize = 128;

/// The most sockets that are taken at once: those of 500 addresses with 32 workers.
const SOCKETS_MAX: usize = 16_384;

/// A successor and the supervisor, and one of each that has just been killed.
const BACKLOG: i32 = 4;

/// How long either side waits for one packet of the other. Both are on this machine; who does not
/// answer is frozen, and the list is not worth a freeze of our own.
const PACKET_TIME: Duration = Duration::from_secs(1);

/// What one process offers to its successor.
#[derive(Debug, Clone, Default)]
pub struct Offer(Arc<Mutex<BTreeMap<String, Vec<OwnedFd>>>>);

impl Offer {
    /// Offers sockets under a name. They are copies: what becomes of the originals changes nothing.
    pub fn put(&self, name: impl Into<String>, sockets: Vec<OwnedFd>) {
        self.offered().insert(name.into(), sockets);
    }

    /// Offers these no longer, and closes the copies.
    pub fn withdraw(&self, name: &str) {
        self.offered().remove(name);
    }

    /// Offers nothing any more.
    pub fn clear(&self) {
        self.offered().clear();
    }

    /// Held for the moment of one change or copy, never while waiting for anybody.
    fn offered(&self) -> MutexGuard<'_, BTreeMap<String, Vec<OwnedFd>>> {
        // A panic of another thread leaves a map that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers whoever asks at `path`, in a thread that ends with the process. One that stood there
    /// before is replaced.
    pub fn serve(&self, path: &Path) -> io::Result<()> {
        let listener = listen_at(path)?;
        let offer = self.clone();
        std::thread::Builder::new()
            .name("hand".into())
            .spawn(move || {
                loop {
                    // Who asked and went away, or may not ask, is no reason to stop answering.
                    if let Ok(successor) = accept_with(&listener, SocketFlags::CLOEXEC) {
                        offer.answer(&successor).ok();
                    }
                }
            })
            .map(drop)
    }

    fn answer(&self, successor: &OwnedFd) -> io::Result<()> {
        let peer = socket_peercred(successor)?.uid;
        if !peer.is_root() && peer != rustix::process::geteuid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        limit_waits(successor)?;
        let mut packet = [0; NAME_LEN_MAX];
        let (len, _) = receive(successor, &mut packet)?;
        let asked = String::from_utf8_lossy(&packet[..len]).into_owned();
        let mut copies = Vec::new();
        for (name, sockets) in &*self.offered() {
            if asked == EVERYTHING || asked == *name {
                for socket in sockets {
                    copies.push((name.clone(), socket.try_clone()?));
                }
            }
        }
        for (name, socket) in &copies {
            send(successor, name.as_bytes(), Some(socket))?;
        }
        send(successor, END, None)
    }
}

/// Takes what is offered at `path` under `name`, or [`EVERYTHING`]; nothing if it is not offered.
pub fn ask(path: &Path, name: &str) -> io::Result<Vec<(String, OwnedFd)>> {
    let socket = make_socket()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    limit_waits(&socket)?;
    send(&socket, name.as_bytes(), None)?;
    let mut taken = Vec::new();
    while taken.len() < SOCKETS_MAX {
        let mut packet = [0; NAME_LEN_MAX];
        let (len, handed) = receive(&socket, &mut packet)?;
        match (&packet[..len], handed) {
            (END, None) => return Ok(taken),
            (name, Some(socket)) => {
                taken.push((String::from_utf8_lossy(name).into_owned(), socket));
            }
            // The other side has ended in the middle.
            (_, None) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn make_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = make_socket()?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    // Between the two, who asks is known by his account, too.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn limit_waits(socket: &OwnedFd) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(PACKET_TIME))?;
    Ok(set_socket_timeout(
        socket,
        Timeout::Send,
        Some(PACKET_TIME),
    )?)
}

fn send(to: &OwnedFd, text: &[u8], handed: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let handed = handed.map(AsFd::as_fd);
    if let Some(handed) = &handed {
        let pushed = ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
            handed,
        )));
        debug_assert!(pushed, "there is space for one");
    }
    sendmsg(
        to,
        &[IoSlice::new(text)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(from: &OwnedFd, packet: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(packet)];
    let received = recvmsg(from, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut handed = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            handed = sockets.last();
        }
    }
    Ok((received.bytes, handed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_queue_survives_the_end_of_who_had_it_and_is_served_by_who_took_it() -> io::Result<()> {
        let dir = TempDir::new("hand");
        let path = dir.join("h.sock");
        let first = TcpListener::bind("127.0.0.1:0")?;
        let address = first.local_addr()?;
        let offer = Offer::default();
        offer.put("entry", vec![first.try_clone()?.into()]);
        offer.put("other", vec![first.try_clone()?.into()]);
        offer.serve(&path)?;
        let waiting = TcpStream::connect(address)?;
        assert_eq!(ask(&path, EVERYTHING)?.len(), 2);
        assert_eq!(ask(&path, "nothing")?.len(), 0);
        let (name, taken) = ask(&path, "entry")?.remove(0);
        assert_eq!(name, "entry");
        drop(first);
        offer.clear();
        assert_eq!(ask(&path, EVERYTHING)?.len(), 0);
        let (_, peer) = TcpListener::from(taken).accept()?;
        assert_eq!(peer, waiting.local_addr()?);
        assert!(TcpStream::connect(address).is_err(), "now nobody has it");
        Ok(())
    }

    #[test]
    fn nobody_there_is_an_error_and_a_path_that_was_left_is_taken_again() -> io::Result<()> {
        let dir = TempDir::new("hand");
        let path = dir.join("h.sock");
        assert!(ask(&path, EVERYTHING).is_err());
        std::fs::write(&path, "")?;
        Offer::default().serve(&path)?;
        assert!(ask(&path, EVERYTHING)?.is_empty());
        Ok(())
    }
}
