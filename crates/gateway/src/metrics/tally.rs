//! The cells of one worker about one thing.

use super::cell::Counter;
use super::histogram::Histogram;
use crate::refusal::Reason;

/// The classes of a status, by its first digit; the first one is for a client that went away
/// before it had one.
pub(crate) const RESPONSE_CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Answers by class of status.
#[derive(Debug, Default)]
pub(crate) struct Responses([Counter; RESPONSE_CLASSES.len()]);

impl Responses {
    #[inline]
    pub(super) fn count(&self, status: Option<u16>) {
        let class = status.map_or(0, |status| usize::from(status / 100));
        let class = if class < self.0.len() { class } else { 0 };
        self.0[class].add(1);
    }

    /// The counter of a class, as in [`RESPONSE_CLASSES`].
    pub(crate) fn of(&self, class: usize) -> &Counter {
        &self.0[class]
    }
}

/// Answers of the gateway's own, by reason.
#[derive(Debug)]
pub(crate) struct Refusals([Counter; Reason::COUNT]);

impl Default for Refusals {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Refusals {
    #[inline]
    pub(super) fn count(&self, reason: Reason) {
        self.0[reason.index()].add(1);
    }

    /// The counter of a reason.
    pub(crate) fn of(&self, reason: Reason) -> &Counter {
        &self.0[reason.index()]
    }
}

/// Of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointTally {
    /// Requests that were given to it, each try of one counted.
    pub(crate) requests: Counter,
    /// Those to which it gave no answer, or one of 500 and more.
    pub(crate) failures: Counter,
    /// Tries elsewhere because it gave no answer.
    pub(crate) retries: Counter,
    /// How often a worker took it out for its failures.
    pub(crate) ejections: Counter,
    /// Connections to it that did not come about.
    pub(crate) connect_failures: Counter,
    /// Requests that were sent here as well as elsewhere, and this answer came first.
    pub(crate) hedges_won: Counter,
    /// The same, and the other answer came first.
    pub(crate) hedges_lost: Counter,
    /// Its answers that were passed on.
    pub(crate) responses: Responses,
    /// Clients that went away before its answer was complete.
    pub(crate) client_aborts: Counter,
    /// Answers that it broke off after their head.
    pub(crate) broken_answers: Counter,
    /// Of bodies of requests.
    pub(crate) bytes_in: Counter,
    /// Of bodies of answers.
    pub(crate) bytes_out: Counter,
    /// From a request's first byte to its answer's last.
    pub(crate) total: Histogram,
    /// From a request's first byte to its answer's head.
    pub(crate) first_byte: Histogram,
    /// Of each new connection to it.
    pub(crate) connect: Histogram,
}

/// Of one service.
#[derive(Debug, Default)]
pub(crate) struct ServiceTally {
    /// Answers to its clients, by whomever.
    pub(crate) responses: Responses,
    /// Those that the gateway gave itself.
    pub(crate) refusals: Refusals,
    /// Tries after the first of a request.
    pub(crate) retries: Counter,
    /// Requests that were tried more than once.
    pub(crate) retried: Counter,
    /// Requests that were sent to a second instance because the first was slow, whose second
    /// answer came first.
    pub(crate) hedges_won: Counter,
    /// The same, and the first answer came first.
    pub(crate) hedges_lost: Counter,
    /// Clients that went away before their answer was complete.
    pub(crate) client_aborts: Counter,
    /// Answers that an instance broke off after their head.
    pub(crate) broken_answers: Counter,
    /// Of bodies of requests.
    pub(crate) bytes_in: Counter,
    /// Of bodies of answers.
    pub(crate) bytes_out: Counter,
    /// From a request's first byte to its answer's last; without upgraded connections.
    pub(crate) total: Histogram,
    /// From a request's first byte to its answer's head; without refusals.
    pub(crate) first_byte: Histogram,
    /// Of each new connection to an instance.
    pub(crate) connect: Histogram,
    /// Of each request that had to wait for an instance.
    pub(crate) queue: Histogram,
}

/// Of one place where clients come in.
#[derive(Debug, Default)]
pub(crate) struct FrontendTally {
    /// Connections that were accepted.
    pub(crate) connections: Counter,
    /// Answers to clients, by whomever.
    pub(crate) responses: Responses,
    /// Those that the gateway gave itself.
    pub(crate) refusals: Refusals,
    /// What a limit ended or kept out.
    pub(crate) denied: DeniedBy,
    /// Of bodies of requests.
    pub(crate) bytes_in: Counter,
    /// Of bodies of answers.
    pub(crate) bytes_out: Counter,
}

/// The limit by which a connection or request was ended or kept out, as it is called in the node's
/// file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Too many connections in all.
    Connections,
    /// Whoever did not say for whom it connects, and had to.
    Proxy,
    /// Too many connections of one address.
    ConnectionsPerAddress,
    /// A head that is too long.
    HeadLen,
    /// A head with too many fields.
    HeadFields,
    /// A head that did not come in time.
    HeadTime,
    /// A body of which nothing came for too long.
    BodyIdle,
    /// A client that did not read.
    WriteIdle,
    /// A request that took too long in all.
    RequestTime,
    /// An idle connection that was closed.
    IdleTime,
    /// A connection that had all its requests.
    RequestsPerConnection,
    /// A connection that was too old.
    ConnectionAge,
    /// A request that found the queue full.
    QueueLen,
    /// A request that waited too long.
    QueueTime,
    /// An HTTP/2 connection that floods.
    H2Flood,
}

impl Denied {
    /// All of them, in the order of their places.
    pub(crate) const ALL: [Self; 15] = [
        Self::Connections,
        Self::Proxy,
        Self::ConnectionsPerAddress,
        Self::HeadLen,
        Self::HeadFields,
        Self::HeadTime,
        Self::BodyIdle,
        Self::WriteIdle,
        Self::RequestTime,
        Self::IdleTime,
        Self::RequestsPerConnection,
        Self::ConnectionAge,
        Self::QueueLen,
        Self::QueueTime,
        Self::H2Flood,
    ];

    /// Its word in metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Proxy => "proxy",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::HeadLen => "head_len",
            Self::HeadFields => "head_fields",
            Self::HeadTime => "head_time",
            Self::BodyIdle => "body_idle",
            Self::WriteIdle => "write_idle",
            Self::RequestTime => "request_time",
            Self::IdleTime => "idle_time",
            Self::RequestsPerConnection => "requests_per_connection",
            Self::ConnectionAge => "connection_age",
            Self::QueueLen => "queue_len",
            Self::QueueTime => "queue_time",
            Self::H2Flood => "h2_flood",
        }
    }

    /// Whether it is the ordinary end of a connection, and nobody was turned away.
    pub(crate) fn is_ordinary(self) -> bool {
        match self {
            Self::IdleTime | Self::RequestsPerConnection | Self::ConnectionAge => true,
            Self::Connections
            | Self::Proxy
            | Self::ConnectionsPerAddress
            | Self::HeadLen
            | Self::HeadFields
            | Self::HeadTime
            | Self::BodyIdle
            | Self::WriteIdle
            | Self::RequestTime
            | Self::QueueLen
            | Self::QueueTime
            | Self::H2Flood => false,
        }
    }
}

/// Counters by limit.
#[derive(Debug, Default)]
pub(crate) struct DeniedBy([Counter; Denied::ALL.len()]);

impl DeniedBy {
    /// Counts one.
    #[inline]
    pub(crate) fn count(&self, by: Denied) {
        self.0[by as usize].add(1);
    }

    /// The counter of a limit.
    pub(crate) fn of(&self, by: Denied) -> &Counter {
        &self.0[by as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_in_its_class_and_what_is_none_apart() {
        let responses = Responses::default();
        for status in [
            None,
            Some(101),
            Some(204),
            Some(299),
            Some(404),
            Some(599),
            Some(999),
        ] {
            responses.count(status);
        }
        let seen: Vec<u64> = (0..RESPONSE_CLASSES.len())
            .map(|class| responses.of(class).get())
            .collect();
        assert_eq!(seen, [2, 1, 2, 0, 1, 1]);
    }

    #[test]
    fn each_limit_has_a_place_and_a_word_of_its_own() {
        let counters = DeniedBy::default();
        for (place, by) in Denied::ALL.into_iter().enumerate() {
            assert_eq!(by as usize, place);
            counters.count(by);
            assert_eq!(counters.of(by).get(), 1, "{}", by.word());
        }
    }
}
