//! What a peer may make us hold or do. Each number says where it comes from.

use core::time::Duration;

/// The largest frame that we offer, in bytes with its eight of header and end: RabbitMQ's default.
pub const FRAME_MAX: u32 = 131_072;
/// The least that a peer may negotiate, and what holds until it did (AMQP 0-9-1, 4.2.3).
pub const FRAME_MIN: u32 = 4096;
/// Type, channel and size before a payload, and the end after it.
pub const FRAME_OVERHEAD: u32 = 8;
/// How far above the negotiated size a payload may be. RabbitMQ bears as much, since quite a few clients count the
/// overhead wrongly.
pub const FRAME_FUDGE: u32 = FRAME_OVERHEAD;
/// Channels per connection: RabbitMQ's default since 3.7.
pub const CHANNEL_MAX: u16 = 2047;
/// The interval of heartbeats that we propose: RabbitMQ's default.
pub const HEARTBEAT: u16 = 60;
/// How long a peer may take from its first byte to `connection.open`: RabbitMQ's `handshake_timeout`.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long we wait for `connection.close-ok`: RabbitMQ's `CLOSING_TIMEOUT`.
pub const CLOSING: Duration = Duration::from_secs(30);
/// Bytes of the answer to a challenge or of a password. The longest that a person or a token needs is far below.
pub const RESPONSE_MAX: usize = 4096;
/// The largest body, in bytes: `max_message_size` of RabbitMQ 3.10.
pub const BODY_MAX: u64 = 128 * 1024 * 1024;
/// Tables within tables. What people nest is two or three deep; each level costs stack when it is read.
pub const TABLE_DEPTH_MAX: usize = 32;
/// Fields of one table and of all those within it. A frame has room for 131,072 fields of one byte, each of which
/// would cost 100 bytes here.
pub const TABLE_FIELDS_MAX: usize = 8192;
/// A short string has one byte of length (AMQP 0-9-1, 4.2.5.3).
pub const SHORT_STRING_MAX: usize = 255;
/// Bodies up to this many bytes are copied behind their header, larger ones go out as they are: below, one more
/// slice costs more than its copy.
pub const COPIED_BODY_MAX: usize = 2048;
/// Deliveries of one queue in one turn, so that a queue of millions does not hold up the others; it goes on in the
/// next turn.
pub const TURN_MAX: usize = 256;
/// The highest `x-max-priority` (RabbitMQ's).
pub const PRIORITY_MAX: u8 = 255;
/// The longest TTL: ten years in milliseconds (RabbitMQ's `check_expiry`).
pub const EXPIRY_MAX_MS: i64 = 315_360_000_000;
/// Messages that one look into a queue shows: a page for a person. Their bodies may be read from disk for it.
pub const PEEK_MAX: usize = 1000;
/// Messages that are moved from one queue to another at once, so that others are served in between.
pub const MOVE_MAX: usize = 1000;
/// Publishes and acknowledgements that one transaction holds; RabbitMQ has no limit, and so no bound of memory.
pub const TRANSACTION_MAX: usize = 65_536;
