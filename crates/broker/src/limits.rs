//! What clients may make the broker hold, and how long anything may take. Each number says where it comes from. What
//! bounds a frame, a table or a handshake is in `mainstay_amqp::limits`.

use std::time::Duration;

/// Connections at most. RabbitMQ has no limit of its own; ten thousand cost us some 10 KiB each while they are idle. Who
/// comes when there are as many is told so.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Connections at most that are in no virtual host yet. Half-open ones end after `HANDSHAKE`, so that a flood of them
/// shuts newcomers out for ten seconds and nobody else: those wait in the kernel's queue.
pub(crate) const HANDSHAKES_MAX: usize = 4096;
/// How long a handshake of TLS may take; RabbitMQ's own is as long.
pub(crate) const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes of TLS at a time. Each holds at most a message of 64 KiB that is not whole, so that all of them have 32 MiB;
/// at a tenth of a second for each, five thousand clients come in per second.
pub(crate) const TLS_HANDSHAKES_MAX: usize = 512;
/// Bytes that one read may bring while a connection is busy: half of the largest frame that we offer, twice over.
pub(crate) const READ_MAX: usize = 128 * 1024;
/// Bytes that were read and not parsed yet, above which nothing is read: more than the largest frame that we offer, so that
/// there is a whole one to go on with. Many small requests are parsed more slowly than they are read.
pub(crate) const INPUT_MAX: usize = 2 * READ_MAX;
/// Bytes that the first read of a connection may bring: a publish with its header and a small body.
pub(crate) const READ_MIN: usize = 4 * 1024;
/// Requests of one connection that go to a virtual host together. More wait in the connection, unread.
pub(crate) const REQUESTS_PER_BATCH: usize = 512;
/// Batches of one connection that its virtual host has not taken yet. Else who asks faster than it is answered would have all
/// the places of `CALLS_MAX`, and half a million requests in memory.
pub(crate) const ASKED_MAX: usize = 16;
/// Bytes that wait for a client before its deliveries pause: as much as a fast reader takes in a millisecond.
pub(crate) const UNSENT_HIGH: usize = 256 * 1024;
/// And below which they go on.
pub(crate) const UNSENT_LOW: usize = 64 * 1024;
/// Bytes of answers that are written out as frames at a time; what waits behind them is shared with the queues.
pub(crate) const FRAMED_MAX: usize = 128 * 1024;
/// Slices of one write: the kernel takes 1024, and 64 fill a socket's buffer with anything but tiny ones.
pub(crate) const SLICES_MAX: usize = 64;
/// What a letter costs besides its body, when bytes are counted.
pub(crate) const LETTER_LEN: usize = 64;
/// Batches of requests that wait for a virtual host. Full: connections keep theirs, and read no further.
pub(crate) const CALLS_MAX: usize = 1024;
/// Calls that a virtual host takes in one turn, so that confirms of the first do not wait for the last of thousands.
pub(crate) const CALLS_PER_TURN: usize = 64;
/// Bytes of changes after which a turn ends and the writer gets them.
pub(crate) const CHANGES_LEN_MAX: usize = 4 * 1024 * 1024;
/// Turns that wait for the writer. Full: their virtual host waits, and reads no further. What waits is in memory as part of
/// its queues anyhow.
pub(crate) const BATCHES_MAX: usize = 16;
/// Bytes that are written before a sync, so that who waits for it does not wait for all that comes meanwhile.
pub(crate) const SYNC_LEN_MAX: usize = 16 * 1024 * 1024;
/// Bodies that are read from a disk at a time: what one without moving parts does side by side, and what four of the largest
/// messages take in memory. More wait in order, one for each connection or caller.
pub(crate) const READERS_MAX: usize = 4;
/// Bytes of a body that is in memory at most to be copied by the thread of all clients: some 50 microseconds. A longer one
/// is read by another thread wherever it is.
pub(crate) const READ_AT_ONCE_MAX: u64 = 256 * 1024;
/// Bytes of acknowledgements after which a sync is made for them alone: some ten thousand.
pub(crate) const UNSYNCED_LEN_MAX: usize = 1024 * 1024;
/// Bytes that virtual hosts write themselves before the writer is called to reclaim room: a step of it.
pub(crate) const WRITTEN_HERE_MAX: usize = 1024 * 1024;
/// Outputs that wait for a declaration to be on disk. More, and its virtual host takes nothing in until it is.
pub(crate) const HELD_MAX: usize = 16_384;
/// How long a connection may take to send its last words once it has ended: `close-ok` is read or it is not.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long clients may take to answer `connection.close` when the broker is told to stop; RabbitMQ's own is 10 s, and the
/// supervisor's patience is 5.
pub(crate) const STOPPING: Duration = Duration::from_secs(2);
/// The pause after an accept that failed because the process has no more descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Slow hashes per second, of all clients together: at 25 ms each they leave three quarters of one processor.
pub(crate) const HASH_EVERY: Duration = Duration::from_millis(100);
/// Who may wait for a slow hash: as many as are served before a handshake is over. Others are refused at once.
pub(crate) const HASHES_WAITING_MAX: usize = 64;
/// And from one address, so that one guesser does not shut out the others.
pub(crate) const HASHES_WAITING_PER_PEER_MAX: usize = 8;
/// How often a refusal is told in the log; those in between are counted there.
pub(crate) const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(1);
/// Answers of one user's permissions that are remembered per connection.
pub(crate) const RIGHTS_CACHED_MAX: usize = 1024;
/// The longest permission, and the largest program that it may become: a person writes some twenty characters.
pub(crate) const PATTERN_LEN_MAX: usize = 1024;
/// Virtual hosts: their number shares 64 bits with that of a queue.
pub(crate) const VHOSTS_MAX: usize = 1024;
/// How often memory and disk are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes of a deleted virtual host that go to the log together: less than a megabyte, which a full disk takes, too.
pub(crate) const REMOVED_AT_ONCE: usize = 8192;

/// How many clients there may be, by what this process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) connections: usize,
    pub(crate) handshakes: usize,
}

impl Room {
    /// A quarter of the descriptors is not for clients: segments of the log are open, and operators must get in when nobody
    /// else does. A fifth of the rest is for those who come in, who would not be told else that there is no room.
    pub(crate) fn of(descriptors: Option<u64>) -> Self {
        let all = descriptors.and_then(|all| usize::try_from(all).ok());
        let for_clients = all.map_or(usize::MAX, |all| all / 4 * 3);
        let handshakes = (for_clients / 5).clamp(1, HANDSHAKES_MAX);
        let connections = (for_clients - handshakes).clamp(1, CONNECTIONS_MAX);
        Self {
            connections,
            handshakes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_open_little_has_room_for_fewer_and_keeps_a_quarter() {
        let whole = Room::of(Some(524_288));
        assert_eq!(whole, Room::of(None));
        assert_eq!(
            (whole.connections, whole.handshakes),
            (CONNECTIONS_MAX, HANDSHAKES_MAX)
        );
        let little = Room::of(Some(1024));
        assert_eq!((little.connections, little.handshakes), (615, 153));
    }
}
