//! Every limit, with its reason.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// Connections at the same time. Each has two sockets, and two buffers while bytes move: 64 MiB.
const CONNECTIONS_MAX: usize = 2048;
/// UDP flows at the same time, with a socket each.
const FLOWS_MAX: usize = 1024;
/// Pipes at the same time. Each has two descriptors and up to 64 KiB of the kernel's memory, of which
/// it grants 1,024 pipes to an ordinary user (`pipe-user-pages-soft`). Who finds none copies.
const PIPES_MAX: usize = 256;
/// The part of all connections that one instance may have, so that one that never answers leaves
/// room for the others.
const INSTANCE_PART: usize = 2;

/// Bytes per direction while they move: half of what a default socket buffer holds.
pub(super) const BUFFER_LEN: usize = 16 * 1024;
/// After so many bytes in one direction it is spliced: with fewer, making a pipe costs more than
/// copying saves (measured for the listeners of the gateway).
pub(super) const SPLICE_AFTER: u64 = 64 * 1024;
/// What a pipe holds if nothing is asked for (`pipe(7)`).
pub(super) const PIPE_LEN: usize = 64 * 1024;
/// The longest UDP payload is a little less.
pub(super) const DATAGRAM_LEN: usize = 64 * 1024;
/// Datagrams of one socket before others have their turn.
pub(super) const DATAGRAMS_AT_ONCE: usize = 64;

/// How long an instance may take to accept; a second is what a lost SYN costs.
pub(super) const CONNECT_TIME: Duration = Duration::from_millis(1500);
/// Instances that one connection tries: it survives three that died in the same moment.
pub(super) const TRIES_MAX: usize = 4;
/// As long as the kernel's table remembers a UDP flow with answers.
pub(super) const FLOW_IDLE: Duration = Duration::from_mins(2);
/// How often idle flows are looked for.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// A peer that is gone without a word is noticed after a minute and five tries.
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
pub(super) const KEEPALIVE_TRIES: u32 = 5;
/// When there are no descriptors: until some are given back.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted; the kernel takes no more than `somaxconn`.
pub(super) const BACKLOG: i32 = 1024;
/// Questions to the thread. The back end and each meter, of which there are two, have one at a time, and
/// one that was given up.
pub(super) const ASKS: usize = 6;
/// How long the thread may take over a question: it only binds sockets.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Those that depend on how many descriptors the process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) of_instance: u64,
    pub(super) flows: usize,
    pub(super) pipes: usize,
}

impl Limits {
    pub(super) fn of_process() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current;
        Self::of(descriptors.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        }))
    }

    /// Half of the descriptors for connections, an eighth for flows and for pipes; the rest is for
    /// listeners and for others in the same process.
    fn of(descriptors: usize) -> Self {
        let connections = (descriptors / 4).clamp(1, CONNECTIONS_MAX);
        Self {
            connections,
            of_instance: u64::try_from(connections.div_ceil(INSTANCE_PART)).unwrap_or(u64::MAX),
            flows: (descriptors / 8).clamp(1, FLOWS_MAX),
            pipes: (descriptors / 16).min(PIPES_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ordinary_process_may_have_is_enough() {
        let Limits {
            connections,
            flows,
            pipes,
            ..
        } = Limits::of(1024);
        assert!(2 * connections + flows + 2 * pipes <= 1024 - 256);
        assert_eq!(Limits::of(usize::MAX).connections, CONNECTIONS_MAX);
        assert_eq!(Limits::of(0).of_instance, 1);
    }
}
