//! What the gateway does with the requests of a service, beside finding an instance for them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::limits::{SpecError, hold};
use crate::rewrite::{REDIRECTS_MAX, Redirect, Rewrite};
use crate::route::{
    CONDITIONS_MAX, CookieName, FieldName, HttpMatch, HttpMatches, MATCHES_MAX, Wanted,
};
use crate::share::Share;

/// The shortest of the times: below it a packet that was lost and sent again would be too late.
pub const TIME_MIN: Duration = Duration::from_millis(10);
/// The longest `timeouts.connect`. Linux gives up after two minutes.
pub const CONNECT_MAX: Duration = Duration::from_mins(2);
/// `queue.len`: 0 refuses at once; each that waits holds a connection.
pub const QUEUE_LEN: RangeInclusive<u32> = 0..=500_000;
/// The longest `queue.time`: whoever waits longer than most clients do waits in vain.
pub const QUEUE_TIME_MAX: Duration = Duration::from_mins(1);
/// `limits.requests`: from one at a time to more than one process has sockets for.
pub const REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
/// The longest `sticky.ttl`. Browsers keep no cookie for longer than 400 days.
pub const STICKY_TTL_MAX: Duration = Duration::from_hours(400 * 24);

/// What the gateway does with a service's requests. Its default is what holds without any key.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Which requests are sent again.
    #[serde(skip_serializing_if = "Retry::is_default")]
    pub retry: Retry,
    /// By what a client stays with an instance; `None`: it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// What is changed in requests and answers.
    #[serde(skip_serializing_if = "Rewrite::is_empty")]
    pub rewrite: Rewrite,
    /// Which requests are answered with another place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// Which part of the requests a new version gets while its canaries run; `None`: each instance
    /// gets as much as any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryTraffic>,
    /// What an instance is told of the way that a request came.
    #[serde(skip_serializing_if = "Trace::is_default")]
    pub trace: Trace,
    /// Deadlines of its own.
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// A queue of its own.
    #[serde(skip_serializing_if = "Queue::is_default")]
    pub queue: Queue,
    /// How many requests an instance gets at once; `None`: as many as it seems to bear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<NonZeroU32>,
}

impl Traffic {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it can be carried out, together with the service's matches.
    pub(crate) fn check(&self, http: Option<&HttpMatches>) -> Result<(), SpecError> {
        let expected = "at most 64 matches, of at most 16 conditions each";
        let matches = http.map_or(0, HttpMatches::len);
        hold(matches <= MATCHES_MAX, "http", expected)?;
        let small = |one: &HttpMatch| one.conditions() <= CONDITIONS_MAX;
        let all_small = http.into_iter().flatten().all(small);
        hold(all_small, "http", expected)?;
        let few = self.redirects.len() <= REDIRECTS_MAX;
        let all_small = self.redirects.iter().all(|redirect| small(&redirect.on));
        hold(few && all_small, "traffic.redirects", expected)?;
        self.rewrite.check()?;
        if let Some(Sticky::Cookie { ttl: Some(ttl), .. }) = &self.sticky {
            let can_be = (Duration::from_secs(1)..=STICKY_TTL_MAX).contains(ttl);
            hold(can_be, "traffic.sticky.ttl", "1s to 400d")?;
        }
        if let Some(canary) = &self.canary {
            let few = canary.headers.len() + canary.cookies.len() <= CONDITIONS_MAX;
            hold(few, "traffic.canary", "at most 16 headers and cookies")?;
        }
        let Timeouts {
            connect,
            answer,
            request,
        } = self.timeouts;
        for (time, key) in [
            (connect, "traffic.timeouts.connect"),
            (answer, "traffic.timeouts.answer"),
            (request, "traffic.timeouts.request"),
            (self.queue.time, "traffic.queue.time"),
        ] {
            let long = time.is_none_or(|time| time >= TIME_MIN);
            hold(long, key, "at least 10ms")?;
        }
        let short = connect.is_none_or(|time| time <= CONNECT_MAX);
        hold(short, "traffic.timeouts.connect", "at most 2m")?;
        let short = self.queue.time.is_none_or(|time| time <= QUEUE_TIME_MAX);
        hold(short, "traffic.queue.time", "at most 1m")?;
        let few = self.queue.len.is_none_or(|len| QUEUE_LEN.contains(&len));
        hold(few, "traffic.queue.len", "0 to 500000")?;
        let few = self
            .requests
            .is_none_or(|most| REQUESTS.contains(&most.get()));
        hold(few, "traffic.requests", "1 to 1000000")
    }
}

/// Which requests are sent again beyond those that are always safe to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The service promises that it does what a request with `Idempotency-Key` asks for once only,
    /// however often it comes.
    pub idempotency_key: bool,
    /// A safe request that takes unusually long is sent to a second instance, too.
    pub hedge: bool,
}

impl Retry {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            idempotency_key: false,
            hedge: true,
        }
    }
}

/// By what a client stays with an instance.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// The gateway gives it a cookie that names the instance.
    Cookie {
        /// The cookie's name.
        name: CookieName,
        /// How long the client keeps it; `None`: as long as it runs.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "mainstay_ids::duration::text::optional"
        )]
        #[cfg_attr(feature = "schema", schemars(with = "Option<alloc::string::String>"))]
        ttl: Option<Duration>,
    },
    /// The value of a header decides. A request without it goes where any would.
    Header(FieldName),
    /// The client's address decides.
    Source,
}

/// Which requests a new version gets while its canaries run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CanaryTraffic {
    /// Its share of all other requests, however many instances there are.
    pub weight: Share,
    /// A request with any of these headers goes there for certain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Wanted<FieldName>,
    /// A request with any of these cookies goes there for certain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: Wanted<CookieName>,
}

/// What an instance is told of the way that a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// In which headers it finds client, host and scheme.
    pub forwarded: Forwarded,
    /// Whether it gets `Via`. RFC 9110, 7.6.3 wants it; some servers compress nothing that has it.
    pub via: bool,
}

impl Trace {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            forwarded: Forwarded::X,
            via: true,
        }
    }
}

/// In which headers an instance finds client, host and scheme.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Forwarded {
    /// `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto`.
    #[default]
    X,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// All of them.
    Both,
}

/// Deadlines of a service; `None`: the gateway's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection to an instance.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "mainstay_ids::duration::text::optional"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<alloc::string::String>"))]
    pub connect: Option<Duration>,
    /// For an instance, from the last byte sent to it to the head of its answer.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "mainstay_ids::duration::text::optional"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<alloc::string::String>"))]
    pub answer: Option<Duration>,
    /// From the head of a request to the end of its answer; not for upgraded connections.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "mainstay_ids::duration::text::optional"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<alloc::string::String>"))]
    pub request: Option<Duration>,
}

impl Timeouts {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Requests of a service that wait for an instance; `None`: as the gateway has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// How many at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<u32>,
    /// How long each at most.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "mainstay_ids::duration::text::optional"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<alloc::string::String>"))]
    pub time: Option<Duration>,
}

impl Queue {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
