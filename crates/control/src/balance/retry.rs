//! Whether a failed request may be sent again. What must never happen: that a request with an
//! effect is carried out twice because of us.

/// How often one request is sent at most. With four tries a request survives three endpoints that
/// died in the same moment.
pub const TRIES_MAX: u32 = 4;

/// What the request's method promises (RFC 9110, 9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodSafety {
    /// It only reads: GET, HEAD, OPTIONS, TRACE.
    Safe,
    /// It may have an effect. PUT and DELETE are here too: that they may be repeated is a promise
    /// of the service, not of the method alone, and another's write may lie between two of them.
    Unsafe,
}

impl MethodSafety {
    /// What the method of this name promises.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" => Self::Safe,
            _ => Self::Unsafe,
        }
    }
}

/// What is left of the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none, or all of it is still there.
    Replayable,
    /// Some of it was streamed to an endpoint and is gone.
    Consumed,
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection came about.
    ConnectFailed,
    /// The connection closed before a byte of this request was written to it.
    NotSent,
    /// The connection was lost when at least a part of the request had been written.
    LostAfterSending,
    /// No answer within the time for one try.
    TimedOut,
    /// The endpoint answered with this status.
    Answered(u16),
}

/// A try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempted {
    /// The request's method.
    pub method: MethodSafety,
    /// What is left of its body.
    pub body: Body,
    /// How the try failed.
    pub failure: FailureKind,
    /// How often it was sent, this try included.
    pub tries: u32,
}

/// Whether it is sent again, if [`super::RetryBudget`] allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryVerdict {
    /// To another endpoint, if there is one.
    Retry,
    /// The client gets the failure.
    GiveUp(GiveUp),
}

/// Why a request is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// It was sent [`TRIES_MAX`] times.
    TooManyTries,
    /// Its body is gone.
    BodyConsumed,
    /// It may have had its effect already.
    MayHaveHadEffect,
    /// The answer is one, though not a good one.
    Answered,
}

impl Attempted {
    /// Whether the request may be sent again.
    pub fn verdict(self) -> RetryVerdict {
        let may_repeat = match self.failure {
            FailureKind::ConnectFailed | FailureKind::NotSent => Ok(()),
            // An answer of a gateway type speaks of the way to the service; others are its own word.
            FailureKind::Answered(502..=504)
            | FailureKind::LostAfterSending
            | FailureKind::TimedOut => match self.method {
                MethodSafety::Safe => Ok(()),
                MethodSafety::Unsafe => Err(GiveUp::MayHaveHadEffect),
            },
            FailureKind::Answered(_) => Err(GiveUp::Answered),
        };
        match (may_repeat, self.body) {
            (Err(reason), _) => RetryVerdict::GiveUp(reason),
            (Ok(()), Body::Consumed) => RetryVerdict::GiveUp(GiveUp::BodyConsumed),
            (Ok(()), Body::Replayable) if self.tries >= TRIES_MAX => {
                RetryVerdict::GiveUp(GiveUp::TooManyTries)
            }
            (Ok(()), Body::Replayable) => RetryVerdict::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &str, failure: FailureKind) -> RetryVerdict {
        let attempted = Attempted {
            method: MethodSafety::of(method),
            body: Body::Replayable,
            failure,
            tries: 1,
        };
        attempted.verdict()
    }

    #[test]
    fn what_was_never_sent_may_always_be_sent_again() {
        for method in ["GET", "POST", "DELETE"] {
            assert_eq!(
                verdict(method, FailureKind::ConnectFailed),
                RetryVerdict::Retry
            );
            assert_eq!(verdict(method, FailureKind::NotSent), RetryVerdict::Retry);
        }
    }

    #[test]
    fn what_may_have_had_its_effect_is_never_sent_again() {
        let lost = [
            FailureKind::LostAfterSending,
            FailureKind::TimedOut,
            FailureKind::Answered(503),
        ];
        for failure in lost {
            assert_eq!(verdict("GET", failure), RetryVerdict::Retry);
            for method in ["POST", "PUT", "DELETE", "PATCH", "WHATEVER"] {
                let never = RetryVerdict::GiveUp(GiveUp::MayHaveHadEffect);
                assert_eq!(verdict(method, failure), never, "{method} {failure:?}");
            }
        }
        let answered = RetryVerdict::GiveUp(GiveUp::Answered);
        assert_eq!(verdict("GET", FailureKind::Answered(500)), answered);
    }

    #[test]
    fn neither_without_its_body_nor_for_ever() {
        let attempted = Attempted {
            method: MethodSafety::Safe,
            body: Body::Consumed,
            failure: FailureKind::LostAfterSending,
            tries: 1,
        };
        let gone = RetryVerdict::GiveUp(GiveUp::BodyConsumed);
        assert_eq!(attempted.verdict(), gone);
        let last = Attempted {
            body: Body::Replayable,
            tries: TRIES_MAX,
            ..attempted
        };
        let often = RetryVerdict::GiveUp(GiveUp::TooManyTries);
        assert_eq!(last.verdict(), often);
    }
}
