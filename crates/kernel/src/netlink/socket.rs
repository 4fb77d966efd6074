//! The socket, and what the kernel answers.
#![expect(
    unsafe_code,
    reason = "an option of netlink sockets that rustix does not have"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force,
    set_socket_timeout,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv,
    send, socket_with,
};

use super::attribute::{Attributes, Writer};

/// A batch has to be sent whole: the rules of 50,000 instances are some 4 MiB.
const SEND_LEN_MAX: usize = 16 * 1024 * 1024;
/// Answers of a batch, one for each of its messages, and a piece of a dump.
const RECEIVE_LEN: usize = 4 * 1024 * 1024;
/// The largest datagram: what the kernel puts together for a dump at most (`NLMSG_GOODSIZE` is 8 KiB,
/// dumps grow to 32 KiB).
const DATAGRAM_LEN: usize = 64 * 1024;
/// The kernel answers at once; if not, something holds its lock.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Length, type, flags, sequence number, port (`struct nlmsghdr`).
pub(super) const HEADER_LEN: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Of each message that asks for something (`NLM_F_REQUEST`).
pub(super) const REQUEST: u16 = 0x1;
/// The kernel answers also if it has nothing to complain of (`NLM_F_ACK`).
pub(super) const ACK: u16 = 0x4;
/// All that there are (`NLM_F_DUMP`).
pub(super) const DUMP: u16 = 0x300;
/// Behind the error stands only the header of the message that it is about (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
/// Behind that stand attributes (`NLM_F_ACK_TLVS`).
const HAS_ATTRIBUTES: u16 = 0x200;
/// Where in the message the kernel found the error (`NLMSGERR_ATTR_OFFS`).
const OFFSET: u16 = 2;

/// A netlink socket; in public, one to netfilter or to rtnetlink. What it may change is of the network namespace in
/// which it was opened, and needs `CAP_NET_ADMIN` there.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
}

/// What the kernel says of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The message's number.
    pub(super) sequence: u32,
    /// 0: it was taken.
    pub(super) errno: i32,
    /// Where the attribute stands that it is about, from the message's begin.
    pub(super) offset: Option<usize>,
}

impl Socket {
    /// Opens one to netfilter, with buffers for large batches if this process may force them.
    pub fn open() -> io::Result<Self> {
        Self::open_to(Some(netlink::NETFILTER))
    }

    /// Opens one to links, addresses and routes (rtnetlink(7)).
    pub fn open_route() -> io::Result<Self> {
        Self::open_to(None)
    }

    /// Opens one to another part of the kernel: one of [`rustix::net::netlink`], or `None`, which is
    /// `NETLINK_ROUTE` (routes, addresses, links), whose number is 0.
    pub(super) fn open_to(part: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            part,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME))?;
        // Without CAP_NET_ADMIN nothing can be changed either, which is told then.
        set_socket_send_buffer_size_force(&socket, SEND_LEN_MAX).ok();
        set_socket_recv_buffer_size_force(&socket, RECEIVE_LEN).ok();
        set_flag(&socket, libc::NETLINK_EXT_ACK)?;
        set_flag(&socket, libc::NETLINK_CAP_ACK)?;
        Ok(Self { socket })
    }

    /// Sends a batch and gathers what the kernel says of each message that asks for an answer. It has
    /// carried all of them out, or refused, when sending returns: nothing is waited for.
    pub(super) fn transact(&self, batch: &[u8]) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        self.exchange(batch, |message| answers.extend(message.answer()))?;
        Ok(answers)
    }

    /// Sends one message that asks for an answer ([`ACK`]), and returns why it was refused, if it was.
    pub(super) fn request(&self, message: &[u8]) -> io::Result<()> {
        match self.transact(message)?.last() {
            Some(answer) if answer.errno == 0 => Ok(()),
            Some(answer) => Err(io::Error::from_raw_os_error(answer.errno)),
            None => Err(io::Error::other("the kernel did not answer")),
        }
    }

    /// Sends a batch and hands on all that comes back; see [`Self::transact`].
    pub(super) fn exchange(
        &self,
        batch: &[u8],
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.drop_stale()?;
        let sent = send(&self.socket, batch, SendFlags::empty())?;
        if sent != batch.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut datagram = vec![0; DATAGRAM_LEN];
        loop {
            let len = match recv(&self.socket, &mut datagram[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => len,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            Messages::of(&datagram[..len]).for_each(&mut each);
        }
    }

    /// Sends a request for a dump, or one that is acknowledged, and hands each message of the answer
    /// on.
    pub(super) fn dump(&self, request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.drop_stale()?;
        send(&self.socket, request, SendFlags::empty())?;
        let mut datagram = vec![0; DATAGRAM_LEN];
        loop {
            let (len, _) = match recv(&self.socket, &mut datagram[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                received => received?,
            };
            for message in Messages::of(&datagram[..len]) {
                match (message.kind, message.answer()) {
                    (DONE, _) => return message.done(),
                    (_, Some(answer)) if answer.errno != 0 => {
                        return Err(io::Error::from_raw_os_error(answer.errno));
                    }
                    (_, Some(_)) => return Ok(()),
                    (_, None) => each(message.body),
                }
            }
        }
    }

    /// Hears from now on what the kernel tells a group.
    pub(super) fn join(&self, group: libc::c_int) -> io::Result<()> {
        // Without an address a socket hears nothing of its group. The kernel picks one.
        bind(&self.socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        set_option(&self.socket, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// Hands on what a group was told, up to so many datagrams, without waiting. If some of it was lost,
    /// or there is more, an error.
    pub(super) fn hear(
        &self,
        datagrams: usize,
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        let mut lost = None;
        let mut datagram = vec![0; DATAGRAM_LEN];
        for _ in 0..datagrams {
            match recv(&self.socket, &mut datagram[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) => Messages::of(&datagram[..len]).for_each(&mut each),
                Err(rustix::io::Errno::AGAIN) => return lost.map_or(Ok(()), Err),
                Err(rustix::io::Errno::INTR) => {}
                // What is still there is older: to be thrown away, too.
                Err(error) => lost = Some(error.into()),
            }
        }
        Err(lost.unwrap_or_else(|| io::ErrorKind::WouldBlock.into()))
    }

    /// Throws away what a call that failed left behind.
    fn drop_stale(&self) -> io::Result<()> {
        let mut datagram = [0; HEADER_LEN];
        loop {
            match recv(&self.socket, &mut datagram[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Switches an option of netlink sockets on.
fn set_flag(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    set_option(socket, option, 1)
}

/// Sets an option of netlink sockets (netlink(7)).
fn set_option(socket: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "it is four")]
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value is a c_int that lives until the call returns.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&value).cast(),
            len,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Writes a message: its header, and what is in it.
pub(super) fn message(
    out: &mut Writer,
    kind: u16,
    (flags, sequence): (u16, u32),
    write: impl FnOnce(&mut Writer),
) {
    let begin = out.len();
    let mut header = [0; HEADER_LEN];
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    out.raw(&header);
    write(out);
    let len = u32::try_from(out.len() - begin).expect("a message is cut long before 4 GiB");
    out.overwrite(begin, &len.to_ne_bytes());
}

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    /// How a dump ended, of its last message: a dump can fail on the way.
    pub(super) fn done(self) -> io::Result<()> {
        let errno = self
            .body
            .first_chunk()
            .copied()
            .map_or(0, i32::from_ne_bytes);
        match errno {
            0.. => Ok(()),
            _ => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
        }
    }

    /// What it says of a message of ours, if that is what it is.
    pub(super) fn answer(self) -> Option<Answer> {
        if self.kind != ERROR {
            return None;
        }
        let (errno, rest) = self.body.split_first_chunk()?;
        let errno = i32::from_ne_bytes(*errno).wrapping_neg();
        let offset = (self.flags & HAS_ATTRIBUTES != 0)
            .then(|| {
                let original = rest.get(..4)?;
                let len = u32::from_ne_bytes(original.try_into().ok()?);
                let quoted = if self.flags & CAPPED != 0 {
                    HEADER_LEN
                } else {
                    usize::try_from(len).ok()?.next_multiple_of(4)
                };
                let attributes = Attributes::of(rest.get(quoted..)?);
                let offset = attributes.find(OFFSET)?.try_into().ok()?;
                usize::try_from(u32::from_ne_bytes(offset)).ok()
            })
            .flatten();
        Some(Answer {
            sequence: self.sequence,
            errno,
            offset,
        })
    }
}

/// The messages of a datagram. Ends at the first that is broken.
pub(super) struct Messages<'a> {
    left: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        Self { left: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.left.split_first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|step| header[at + step]));
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let len = usize::try_from(word(0)).ok()?;
        let body = self.left.get(HEADER_LEN..len)?;
        let next = len.next_multiple_of(4).min(self.left.len());
        self.left = &self.left[next..];
        Some(Message {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            body,
        })
    }
}
