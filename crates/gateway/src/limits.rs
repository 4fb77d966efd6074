//! Every limit and deadline of the data plane, with its reason.

use std::time::Duration;

use mainstay_http1::HeadLimits;

/// Instances are on this machine or in its network: one that does not answer a SYN for a second is
/// gone or drowned, and the next try goes elsewhere. Also the time of the first SYN retransmission.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an idle connection to an instance is kept. Most servers close theirs after 5 to 75 s;
/// the shorter ones are seen when the connection is taken out of the pool.
pub(crate) const UPSTREAM_IDLE_MAX: Duration = Duration::from_secs(30);

/// Idle connections per endpoint and worker: as many as a burst of requests of 1 ms at 100,000
/// requests/s needs. More are closed, which costs their next use a handshake of some 50 us.
pub(crate) const UPSTREAM_IDLE_COUNT_MAX: usize = 128;

/// What the head of an instance's answer may be. Instances are trusted to be sane, not to be right.
pub(crate) const INSTANCE_HEAD: HeadLimits = HeadLimits {
    len_max: 128 * 1024,
    fields_max: 200,
};

/// A read of a head, or of a small body: almost all come in one.
pub(crate) const READ_LEN: usize = 16 * 1024;

/// A read of a body that goes on: larger ones save no more system calls than they cost in cache.
pub(crate) const BODY_READ_LEN: usize = 64 * 1024;

/// Of all requests of one connection of HTTP/2 at once, how many bytes a client may send before they
/// are taken: with 128 streams at most 128 times as much as one of HTTP/1 may have under way.
pub(crate) const H2_WINDOW: u32 = 256 * 1024;

/// Bytes of one stream's answer that wait for the client to make room.
pub(crate) const H2_SEND_LEN_MAX: usize = 64 * 1024;

/// Streams of HTTP/2 that the client took back before we looked at them. More is an attack (rapid
/// reset, CVE-2023-44487) and ends the connection; the library's own default.
pub(crate) const H2_RESETS_PENDING_MAX: usize = 20;

/// A client of HTTP/2 that says nothing for so long is asked whether it is there.
pub(crate) const H2_PING_AFTER: Duration = Duration::from_secs(30);

/// How long it may take over its answer.
pub(crate) const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Read buffers that a worker keeps for the next connections: as many as are usually read at once,
/// at most 4 MiB.
pub(crate) const BUFFERS_KEPT_MAX: usize = 64;

/// Buffers that are looked at before a new one is made: those given back last may still be in use.
pub(crate) const BUFFERS_TRIED: usize = 4;

/// Heads are cut from blocks of this length: some fifty of them.
pub(crate) const HEADS_BLOCK_LEN: usize = 64 * 1024;

/// A block with less room than this for a head is replaced; longer heads make it grow.
pub(crate) const HEAD_ROOM: usize = 4 * 1024;

/// Parts of a message that are together no longer than this are put side by side before they are
/// written: an answer's head with a small body.
pub(crate) const GATHERED_LEN_MAX: usize = 1024;

/// How much of a body that nobody wants is read so that its connection can be used again.
pub(crate) const SKIP_LEN_MAX: usize = 64 * 1024;

/// Interim answers that are passed on to the client of one request: "Processing", which is said every
/// 20 s (RFC 2518, 10.1), for ten minutes, and some hints. More are dropped.
pub(crate) const INTERIM_MAX: u32 = 32;

/// Of interim answers, how much waits for a client to read: a head as long as most servers allow.
/// What does not fit is dropped; it only would have told sooner what the answer says.
pub(crate) const EARLY_LEN_MAX: usize = 16 * 1024;

/// When the gateway stops, a connection without a request is closed after it was idle for so long:
/// a client that has just been served may have sent its next request already.
pub(crate) const PARTING_IDLE: Duration = Duration::from_secs(1);

/// After accept failed for want of descriptors or memory: time for a few connections to end. Until
/// then new ones wait in the kernel's queue.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a worker looks at its connections for timeouts, and writes out its access log.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// How often a worker says that it goes on: ten times in the second after which who holds a floating address takes it
/// for stuck (`mainstay-vip`). It costs a system call of a microsecond each.
pub(crate) const BEAT_EVERY: Duration = Duration::from_millis(100);

/// How often a worker looks whether those have gone who are to leave an address, beside when one goes.
pub(crate) const LEAVE_LOOK: Duration = Duration::from_millis(5);

/// After an answer that came before the request's body was read: how long the rest is read and
/// thrown away, so that the client is not reset before it has read the answer.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(1);

/// And how much of it.
pub(crate) const LINGER_LEN_MAX: usize = 256 * 1024;

/// A peer behind a dead network is found after this and three probes of ten seconds each.
pub(crate) const TCP_KEEPALIVE_AFTER: Duration = Duration::from_mins(1);

/// See [`TCP_KEEPALIVE_AFTER`].
pub(crate) const TCP_KEEPALIVE_EVERY: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted, per socket; the kernel cuts it at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Acknowledgements also renew the lease of a consumer, which is 3 s.
pub(crate) const ACK_EVERY: Duration = Duration::from_secs(1);

/// Published states between link and coordinator. Full: the watch is read later, and the control
/// centre skips states.
pub(crate) const ROUTINGS: usize = 4;

/// Acknowledgements between coordinator and link. Full: the control centre is away, and they are
/// dropped; each repeats all that matters.
pub(crate) const ACKS: usize = 16;

/// Live tables that may not be acknowledged yet: as many changes as a rollout makes while the disk
/// takes a second. Beyond it the disk hangs, and of those that wait the newest is enough.
pub(crate) const TABLES_PENDING_MAX: usize = 64;

/// How long a starting gateway waits for live routes before it begins with the stored ones, while
/// clients wait in the listening queues. A control centre that answers sends its first line within
/// milliseconds, so this covers a busy machine and two missed tries to reach it; more would turn the
/// absence of the control centre into timeouts of clients, of which the shortest usual one is 1 s.
pub(crate) const FIRST_ROUTES_TIME: Duration = Duration::from_millis(500);

/// How long the removal of the stored routes may take at the end. The supervisor waits for us, and
/// if the disk hangs there is no farewell, so that nothing is stopped early.
pub(crate) const FORGET_TIME: Duration = Duration::from_secs(1);

/// `Applied` messages of one worker. Full: the worker waits for the coordinator, which never waits
/// for a worker but for room in its orders.
pub(crate) const APPLIED_PER_WORKER: usize = 4;

/// Orders to a worker: the addresses of a first table of 500 services and their next. Full: the
/// coordinator waits for the worker to make room.
pub(crate) const ORDERS: usize = 1024;

/// How long requests in flight may take to their end when the gateway stops: as long as an
/// instance's own drain by default.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(30);

/// How long a trusted proxy may take to send its header: it does so with its first packet, so this
/// covers one retransmission of it.
pub(crate) const PROXY_HEADER_TIME: Duration = Duration::from_secs(3);
