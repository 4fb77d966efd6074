//! How a gateway is to behave, whatever it routes: its limits and deadlines against clients and
//! instances that are slow, many or hostile.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::limits::SpecError;
use crate::listen::Trusted;
use crate::{ListenSpec, Network};

/// `head_len`: as much as the large servers behind a gateway take at most (8 to 64 KiB), so that a
/// request is refused here only where it would be refused there as well.
pub const HEAD_LEN: u32 = 64 * 1024;
/// `head_fields`: browsers send some 20 and proxies add 10. Each costs its own check, and a head
/// of ten thousand empty ones would fit into [`HEAD_LEN`].
pub const HEAD_FIELDS: u32 = 100;
/// `head_time`: a mobile client needs two seconds at worst; a client that dribbles holds a
/// connection no longer than this.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// `body_idle`: a mobile client in a tunnel comes back within some ten seconds or not at all. Of an
/// upload that moves the length is free.
pub const BODY_IDLE: Duration = Duration::from_secs(30);
/// `write_idle`: the same for a client that does not read its answer.
pub const WRITE_IDLE: Duration = Duration::from_secs(30);
/// `answer_time`: what common clients wait at most; beyond it nobody is left who reads the answer.
pub const ANSWER_TIME: Duration = Duration::from_mins(1);
/// `request_time`: an upload of 40 GB at 100 Mbit/s. It is for what trickles for ever, so that a
/// drain, too, knows when the last request ends.
pub const REQUEST_TIME: Duration = Duration::from_hours(1);
/// `idle_time`: browsers keep connections for one to five minutes, and each costs some kilobytes.
pub const IDLE_TIME: Duration = Duration::from_secs(75);
/// `connections`: with two descriptors each far below the usual hard limit of 524,288, and, idle at
/// some kilobytes each, below 300 MiB.
pub const CONNECTIONS: u32 = 40_000;
/// `connections_per_address` is this part of `connections`: one address alone cannot keep the
/// others out, and a large office or a proxy behind one address still has ten thousand.
pub const CONNECTIONS_PER_ADDRESS_PART: u32 = 4;
/// `requests_per_connection`: a load generator or a proxy in front is moved to another worker at
/// times, at a cost of one handshake per hundred thousand requests.
pub const REQUESTS_PER_CONNECTION: u32 = 100_000;
/// `connection_age`: what resolved a name an hour ago resolves it again, so that entries that
/// come and go get and lose their share.
pub const CONNECTION_AGE: Duration = Duration::from_hours(1);
/// `queue_len`: at 1,000 requests/s, as many as come within [`QUEUE_TIME`]. More would wait in vain.
pub const QUEUE_LEN: u32 = 1000;
/// `queue_time`: the agent starts a crashed instance again within it, and a person still takes it
/// for an answer. Nothing has been sent, so nothing is lost by waiting.
pub const QUEUE_TIME: Duration = Duration::from_secs(1);
/// `replay_len`: most bodies of requests that are safe to send again are forms and JSON of a few
/// kilobytes. With [`CONNECTIONS`] uploads at once it is 2.5 GiB at the very worst.
pub const REPLAY_LEN: u32 = 64 * 1024;
/// `h2_streams`: RFC 9113, 6.5.2 recommends not less than 100, and browsers use about as many.
pub const H2_STREAMS: u32 = 128;

/// For what is under way when a gateway ends or hands over: as long as an instance's own drain by
/// default.
pub const DRAIN: Duration = Duration::from_secs(30);

/// `head_len`: RFC 9112, 3 wants request lines of 8,000 bytes; above a mebibyte it is a body.
pub const HEAD_LEN_RANGE: RangeInclusive<u32> = 8 * 1024..=1024 * 1024;
/// `head_fields`: below it a browser is refused; above it, finding one costs more than the request.
pub const HEAD_FIELDS_RANGE: RangeInclusive<u32> = 16..=1000;
/// `connections` and `connections_per_address`: as many as one process may have descriptors for.
pub const CONNECTIONS_RANGE: RangeInclusive<u32> = 1..=500_000;
/// `requests_per_connection`: 1 is `Connection: close` after each.
pub const REQUESTS_PER_CONNECTION_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;
/// `queue_len`: 0 refuses at once; each that waits holds a connection.
pub const QUEUE_LEN_RANGE: RangeInclusive<u32> = 0..=500_000;
/// `replay_len`: 0 repeats no request with a body; above it, memory is the gateway's end.
pub const REPLAY_LEN_RANGE: RangeInclusive<u32> = 0..=16 * 1024 * 1024;
/// `h2_streams`: each costs buffers of its own.
pub const H2_STREAMS_RANGE: RangeInclusive<u32> = 1..=10_000;
/// The shortest of the times: below it a packet that was lost and sent again would be too late.
pub const TIME_MIN: Duration = Duration::from_millis(10);

/// What a gateway allows, checked. One value is for all its workers; lengths are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct GatewayLimits {
    /// The longest head of a request: line and fields with their ends, in bytes. Longer: 431.
    pub head_len: u32,
    /// The most fields of a head, and of trailers. More: 431.
    pub head_fields: u32,
    /// For a client to send a whole head, from its first byte; then 408 and the end.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub head_time: Duration,
    /// Without a byte of a body that is awaited from the client; then 408 and the end.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub body_idle: Duration,
    /// Without a byte that the client takes while there is something to send; then the end.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub write_idle: Duration,
    /// For an instance, from the last byte sent to it to the head of its answer; then 504.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub answer_time: Duration,
    /// From the head of a request to the end of its answer; not for upgraded connections.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub request_time: Duration,
    /// A client's connection without a request in it.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub idle_time: Duration,
    /// Clients' connections at once, in all workers together. More wait in the kernel's queue.
    pub connections: u32,
    /// Of them from one address (IPv6: from one /64). More are closed.
    pub connections_per_address: u32,
    /// After so many requests on one connection, its answer says `Connection: close`.
    pub requests_per_connection: u32,
    /// After this time, a connection's next answer says `Connection: close`.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub connection_age: Duration,
    /// Requests of one service that wait for an instance, in all workers together. More: 503.
    pub queue_len: u32,
    /// How long each of them waits; then 503.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub queue_time: Duration,
    /// The longest body that is kept to be sent again, in bytes. Longer ones are sent once.
    pub replay_len: u32,
    /// Requests at once on one connection of HTTP/2.
    pub h2_streams: u32,
}

/// Whether the gateway writes a line for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    /// It does.
    #[default]
    On,
    /// It does not.
    Off,
}

/// Who may see the statistics from another machine.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsAuth {
    /// The name; printable ASCII without a colon.
    pub user: String,
    /// The password. It stands in no message.
    pub password: String,
}

impl fmt::Debug for StatsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsAuth")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// All that a gateway may be told while it runs, checked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// What is allowed.
    pub limits: GatewayLimits,
    /// Whether each request is written down.
    pub access_log: AccessLog,
    /// Who may see the statistics; `None`: everybody who reaches them, which is this machine alone.
    pub stats_auth: Option<StatsAuth>,
    /// How long requests and tunnels that are under way may go on when the gateway is told to end.
    #[serde(with = "mainstay_ids::duration::text")]
    pub drain: Duration,
    /// Who must say by the PROXY protocol for whom it connects to the entry; everybody else is refused
    /// there. `None`: nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_proxy: Option<Trusted>,
    /// The entries to servers that Mainstay did not start.
    pub listens: Vec<ListenSpec>,
    /// Service addresses in these are not its own: the node forwards them. Read at the start only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwarded: Vec<Network>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            limits: GatewayLimits::default(),
            access_log: AccessLog::default(),
            stats_auth: None,
            drain: DRAIN,
            accept_proxy: None,
            listens: Vec::new(),
            forwarded: Vec::new(),
        }
    }
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            head_len: HEAD_LEN,
            head_fields: HEAD_FIELDS,
            head_time: HEAD_TIME,
            body_idle: BODY_IDLE,
            write_idle: WRITE_IDLE,
            answer_time: ANSWER_TIME,
            request_time: REQUEST_TIME,
            idle_time: IDLE_TIME,
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS / CONNECTIONS_PER_ADDRESS_PART,
            requests_per_connection: REQUESTS_PER_CONNECTION,
            connection_age: CONNECTION_AGE,
            queue_len: QUEUE_LEN,
            queue_time: QUEUE_TIME,
            replay_len: REPLAY_LEN,
            h2_streams: H2_STREAMS,
        }
    }
}

impl GatewayLimits {
    /// Whether they can be kept. Those that were read from a node's file can.
    pub fn check(&self) -> Result<(), SpecError> {
        for (value, range, key, expected) in [
            (
                self.head_len,
                HEAD_LEN_RANGE,
                "limits.head_len",
                "8 KiB to 1 MiB",
            ),
            (
                self.head_fields,
                HEAD_FIELDS_RANGE,
                "limits.head_fields",
                "16 to 1000",
            ),
            (
                self.connections,
                CONNECTIONS_RANGE,
                "limits.connections",
                "1 to 500000",
            ),
            (
                self.connections_per_address,
                1..=self.connections,
                "limits.connections_per_address",
                "1 to `limits.connections`",
            ),
            (
                self.requests_per_connection,
                REQUESTS_PER_CONNECTION_RANGE,
                "limits.requests_per_connection",
                "1 to 1000000000",
            ),
            (
                self.queue_len,
                QUEUE_LEN_RANGE,
                "limits.queue_len",
                "0 to 500000",
            ),
            (
                self.replay_len,
                REPLAY_LEN_RANGE,
                "limits.replay_len",
                "0 to 16 MiB",
            ),
            (
                self.h2_streams,
                H2_STREAMS_RANGE,
                "limits.h2_streams",
                "1 to 10000",
            ),
        ] {
            if !range.contains(&value) {
                return Err(SpecError { key, expected });
            }
        }
        self.check_times()
    }

    fn check_times(&self) -> Result<(), SpecError> {
        for (time, key) in [
            (self.head_time, "limits.head_time"),
            (self.body_idle, "limits.body_idle"),
            (self.write_idle, "limits.write_idle"),
            (self.answer_time, "limits.answer_time"),
            (self.request_time, "limits.request_time"),
            (self.idle_time, "limits.idle_time"),
            (self.connection_age, "limits.connection_age"),
            (self.queue_time, "limits.queue_time"),
        ] {
            if time < TIME_MIN {
                let expected = "at least 10ms";
                return Err(SpecError { key, expected });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_kept() {
        assert_eq!(GatewayLimits::default().check(), Ok(()));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_its_key() {
        let default = GatewayLimits::default();
        let refused = |limits: GatewayLimits| limits.check().err().map(|error| error.key);
        let short = GatewayLimits {
            queue_time: Duration::ZERO,
            ..default
        };
        assert_eq!(refused(short), Some("limits.queue_time"));
        let few = GatewayLimits {
            connections: 100,
            ..default
        };
        assert_eq!(refused(few), Some("limits.connections_per_address"));
        let long = GatewayLimits {
            head_len: u32::MAX,
            ..default
        };
        assert_eq!(refused(long), Some("limits.head_len"));
    }
}
