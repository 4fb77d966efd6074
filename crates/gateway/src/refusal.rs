//! What a client is told when no instance answers it: a status, a word for programs in the header
//! `mainstay-reason`, and a text for people with the remedy.

use bytes::Bytes;
use mainstay_model::routing::Unavailable;

use crate::table::Owner;
use crate::view::{LocalEndpoint, LocalService};

/// A client that waits for a second will find what a crash or a rollout left.
const SOON: &[u8] = b"1";

/// Why a request is not answered by an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The request itself is wrong.
    BadRequest,
    /// Its head did not come in time.
    HeadTimeout,
    /// Its body did not come in time.
    BodyTimeout,
    /// No service claims it.
    NoRoute,
    /// The service has no endpoint, and why.
    Unavailable(Unavailable),
    /// The service has no endpoint, and nobody said why.
    NoEndpoint,
    /// Not one endpoint accepted a connection.
    AllFailed,
    /// Each instance is as busy as it may be, and so was the line before them.
    Overloaded,
    /// It was sent, no answer came, and sending it again could do twice what it asks for.
    LostInFlight,
    /// It was sent, and the head of the answer did not come in time.
    ResponseTimeout,
    /// The instance changed the protocol without having been asked, or not to the end.
    BadUpgrade,
}

impl Reason {
    /// All of them, in the order of their places.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::BadRequest,
        Self::NoRoute,
        Self::Unavailable(Unavailable::Starting),
        Self::Unavailable(Unavailable::CrashLooping),
        Self::Unavailable(Unavailable::ScaledToZero),
        Self::Unavailable(Unavailable::Stopping),
        Self::NoEndpoint,
        Self::AllFailed,
        Self::LostInFlight,
        Self::ResponseTimeout,
        Self::BadUpgrade,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::Overloaded,
        Self::Unavailable(Unavailable::Drained),
    ];

    /// How many there are.
    pub(crate) const COUNT: usize = 15;

    /// Its place in counters by reason; no `_`, so that a new reason is counted from the beginning.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::BadRequest => 0,
            Self::NoRoute => 1,
            Self::Unavailable(Unavailable::Starting) => 2,
            Self::Unavailable(Unavailable::CrashLooping) => 3,
            Self::Unavailable(Unavailable::ScaledToZero) => 4,
            Self::Unavailable(Unavailable::Stopping) => 5,
            Self::NoEndpoint => 6,
            Self::AllFailed => 7,
            Self::LostInFlight => 8,
            Self::ResponseTimeout => 9,
            Self::BadUpgrade => 10,
            Self::HeadTimeout => 11,
            Self::BodyTimeout => 12,
            Self::Overloaded => 13,
            Self::Unavailable(Unavailable::Drained) => 14,
        }
    }

    /// The word in the header.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::HeadTimeout => "head-timeout",
            Self::BodyTimeout => "body-timeout",
            Self::NoRoute => "no-route",
            Self::Unavailable(Unavailable::Starting) => "starting",
            Self::Unavailable(Unavailable::CrashLooping) => "crash-looping",
            Self::Unavailable(Unavailable::ScaledToZero) => "scaled-to-zero",
            Self::Unavailable(Unavailable::Stopping) => "stopping",
            Self::Unavailable(Unavailable::Drained) => "drained",
            Self::NoEndpoint => "no-endpoint",
            Self::AllFailed => "all-failed",
            Self::Overloaded => "overloaded",
            Self::LostInFlight => "lost-in-flight",
            Self::ResponseTimeout => "response-timeout",
            Self::BadUpgrade => "bad-upgrade",
        }
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::NoRoute => 404,
            Self::Unavailable(_) | Self::NoEndpoint | Self::AllFailed | Self::Overloaded => {
                SERVICE_UNAVAILABLE
            }
            Self::LostInFlight | Self::BadUpgrade => 502,
            Self::ResponseTimeout => 504,
        }
    }
}

const SERVICE_UNAVAILABLE: u16 = 503;

/// An answer of the gateway's own.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// What is wrong, as the end of a sentence.
    pub(crate) what: String,
    /// To whom the request belonged, for the remedy.
    pub(crate) owner: Option<Owner>,
    /// The instance that was asked.
    pub(crate) instance: Option<Bytes>,
}

impl Refusal {
    /// A refusal before a service was found.
    pub(crate) fn unrouted(reason: Reason, what: String) -> Self {
        Self {
            reason,
            what,
            owner: None,
            instance: None,
        }
    }

    /// A refusal in the name of a service, and of the instance that was asked last.
    pub(crate) fn of(
        service: &LocalService,
        endpoint: Option<&LocalEndpoint>,
        reason: Reason,
        what: &str,
    ) -> Self {
        Self {
            reason,
            what: what.to_owned(),
            owner: Some(service.owner.clone()),
            instance: endpoint.map(|endpoint| endpoint.shared.label.clone()),
        }
    }

    /// The fields that tell programs.
    pub(crate) fn fields(&self) -> Vec<(&'static str, Bytes)> {
        let word = Bytes::from_static(self.reason.word().as_bytes());
        let text = Bytes::from_static(b"text/plain; charset=utf-8");
        let mut fields = vec![("mainstay-reason", word), ("content-type", text)];
        if self.reason.status() == SERVICE_UNAVAILABLE {
            fields.push(("retry-after", Bytes::from_static(SOON)));
        }
        if let Some(instance) = &self.instance {
            fields.push(("mainstay-instance", instance.clone()));
        }
        fields
    }

    /// The text that tells people.
    pub(crate) fn text(&self, id: &[u8]) -> Bytes {
        self.text_with_status(self.reason.status(), id)
    }

    /// The same with another status than the reason's.
    pub(crate) fn text_with_status(&self, status: u16, id: &[u8]) -> Bytes {
        let phrase = mainstay_http1::reason(status);
        let subject = match &self.owner {
            Some(Owner::Service(service)) => format!("service `{service}` did not answer"),
            Some(Owner::Listen(listen)) => format!("listener `{listen}` did not answer"),
            None => "this request cannot be answered".to_owned(),
        };
        let id = String::from_utf8_lossy(id);
        let remedy = match (self.reason, &self.owner) {
            (Reason::BadRequest | Reason::HeadTimeout | Reason::BodyTimeout, _) => {
                "change the request.".to_owned()
            }
            (_, Some(Owner::Service(_))) => format!("`mainstay why request {id}` tells why."),
            (_, Some(Owner::Listen(_))) => {
                "the statistics page shows its servers with their checks.".to_owned()
            }
            (_, None) => {
                "`mainstay status` lists the services with their hosts and paths.".to_owned()
            }
        };
        let what = &self.what;
        Bytes::from(format!(
            "{status} {phrase}: {subject}: {what}.\nWhat to do: {remedy}\nRequest id: {id}\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_place_and_a_word_of_its_own() {
        let mut words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::COUNT);
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place, "{reason:?}");
        }
    }
}
