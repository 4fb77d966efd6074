//! Every limit of the listeners, with its reason.

use std::time::Duration;

/// Bytes per direction while they move. Half of what a default socket buffer holds; larger ones
/// gain nothing, since what is larger is spliced.
pub(crate) const BUFFER_LEN: usize = 16 * 1024;

/// Buffers that a worker keeps for the next to need one: 1 MiB. More are given back.
pub(crate) const BUFFERS_IDLE_MAX: usize = 64;

/// After so many bytes in one direction it is spliced: with fewer, making a pipe costs more than
/// copying saves (measured: 11 % more for short connections, 24 % less for answers of 1 MiB).
pub(crate) const SPLICE_AFTER: u64 = 64 * 1024;

/// What a pipe holds if nothing is asked for (`pipe(7)`).
pub(crate) const PIPE_LEN: usize = 64 * 1024;

/// Pipes per worker, in use and idle. Each is two descriptors and up to 64 KiB of the kernel's
/// memory, of which it grants 1,024 pipes to an ordinary user (`pipe-user-pages-soft`). Those that
/// find none copy.
pub(crate) const PIPES_MAX: usize = 256;

/// Pipes that a worker keeps for the next transfer.
pub(crate) const PIPES_IDLE_MAX: usize = 32;

/// Servers that one session tries in a row before it pauses: with four tries it survives three
/// servers that died in the same moment.
pub(crate) const TRIES_MAX: u32 = 4;

/// Between two rounds over servers that all failed. A server that is started again is reached soon,
/// and one that is not is not flooded.
pub(crate) const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// For how long a server to which a connection failed is chosen only if there is no other: until the
/// check that the failure hastens has ended.
pub(crate) const RELUCTANCE: Duration = Duration::from_secs(1);

/// How long sessions that were cut may take to end: it is only local work.
pub(crate) const CUT_TIME: Duration = Duration::from_secs(1);

/// Questions to the chief. Full: who asks waits.
pub(crate) const ASKS: usize = 16;

/// How long the chief may take over a question: its work is only in memory.
pub(crate) const ASK_TIME: Duration = Duration::from_secs(5);

/// How long what an operator set may take to be written. The servers are not checked meanwhile, and a
/// disk that needs longer than this is told.
pub(crate) const KEEP_TIME: Duration = Duration::from_secs(1);

/// Failed connections on their way to the chief. Full: dropped, since the ordinary check comes
/// anyway.
pub(crate) const FAILURES: usize = 256;

/// Sockets on their way to a worker: the addresses of 16 listeners. Full: the chief waits for the
/// worker to take some.
pub(crate) const ORDERS: usize = 256;

/// How often an address that could not be bound is tried again.
pub(crate) const BIND_EVERY: Duration = Duration::from_secs(1);

/// The status line of an answer is in the first few hundred bytes.
pub(crate) const CHECK_HEAD_LEN_MAX: usize = 4096;

/// `Connection.Start` must fit into a frame of the least size that AMQP 0-9-1 allows (4.2.3).
pub(crate) const AMQP_FRAME_LEN_MAX: usize = 4096;

/// How much of a failed check is told to people.
pub(crate) const TOLD_LEN_MAX: usize = 200;
