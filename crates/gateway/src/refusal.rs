//! What a client is told when no instance answers it: a status, a word for programs in the header
//! `mainstay-reason`, and a text for people with the remedy.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mainstay_model::routing::Unavailable;

use crate::view::{LocalEndpoint, LocalService};

const MAINSTAY_REASON: HeaderName = HeaderName::from_static("mainstay-reason");
const MAINSTAY_INSTANCE: HeaderName = HeaderName::from_static("mainstay-instance");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// A client that waits for a second will find what a crash or a rollout left.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not answered by an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The request itself is wrong.
    BadRequest,
    /// No service claims it.
    NoRoute,
    /// The service has no endpoint, and why.
    Unavailable(Unavailable),
    /// The service has no endpoint, and nobody said why.
    NoEndpoint,
    /// Not one endpoint accepted a connection.
    AllFailed,
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
    ];

    /// How many there are.
    pub(crate) const COUNT: usize = 11;

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
        }
    }

    /// The word in the header.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::NoRoute => "no-route",
            Self::Unavailable(Unavailable::Starting) => "starting",
            Self::Unavailable(Unavailable::CrashLooping) => "crash-looping",
            Self::Unavailable(Unavailable::ScaledToZero) => "scaled-to-zero",
            Self::Unavailable(Unavailable::Stopping) => "stopping",
            Self::NoEndpoint => "no-endpoint",
            Self::AllFailed => "all-failed",
            Self::LostInFlight => "lost-in-flight",
            Self::ResponseTimeout => "response-timeout",
            Self::BadUpgrade => "bad-upgrade",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Unavailable(_) | Self::NoEndpoint | Self::AllFailed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::LostInFlight | Self::BadUpgrade => StatusCode::BAD_GATEWAY,
            Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// An answer of the gateway's own.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// What is wrong, as the end of a sentence.
    pub(crate) what: String,
    /// The service's name, for the remedy.
    pub(crate) service: Option<String>,
    /// The instance that was asked.
    pub(crate) instance: Option<HeaderValue>,
}

impl Refusal {
    /// A refusal before a service was found.
    pub(crate) fn unrouted(reason: Reason, what: String) -> Self {
        Self {
            reason,
            what,
            service: None,
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
            service: Some(service.name.to_string()),
            instance: endpoint.map(|endpoint| endpoint.shared.label.clone()),
        }
    }

    /// The headers that tell programs.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            MAINSTAY_REASON,
            HeaderValue::from_static(self.reason.word()),
        );
        headers.insert(CONTENT_TYPE, PLAIN_TEXT);
        if self.reason.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, SOON);
        }
        if let Some(instance) = &self.instance {
            headers.insert(MAINSTAY_INSTANCE, instance.clone());
        }
        headers
    }

    /// The text that tells people.
    pub(crate) fn text(&self, id: &HeaderValue) -> Bytes {
        let status = self.reason.status();
        let subject = match &self.service {
            Some(service) => format!("service `{service}` did not answer"),
            None => "this request cannot be answered".to_owned(),
        };
        let id = id.to_str().unwrap_or("?");
        let remedy = match (self.reason, &self.service) {
            (Reason::BadRequest, _) => "change the request.".to_owned(),
            (_, Some(_)) => format!("`mainstay why request {id}` tells why."),
            (_, None) => {
                "`mainstay status` lists the services with their hosts and paths.".to_owned()
            }
        };
        let what = &self.what;
        Bytes::from(format!(
            "{status}: {subject}: {what}.\nWhat to do: {remedy}\nRequest id: {id}\n"
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
