//! Whether a failed request may be sent again. What must never happen: that a request with an
//! effect is carried out twice because of us, or carried out late, after a newer one.
//!
//! | what happened                       | safe | idempotent | other |
//! |-------------------------------------|------|------------|-------|
//! | nothing was sent                    | yes  | yes        | yes   |
//! | the connection broke                | yes  | yes        | no    |
//! | the centre declared the other dead  | yes  | yes        | no    |
//! | no answer in time, or it is frozen  | yes  | no         | no    |
//! | it answered 502, 503 or 504         | yes  | no         | no    |
//!
//! Between the second and the fourth line lies a thaw: an instance that is only frozen still has the
//! old PUT, and carries it out after the newer one that the client sent meanwhile. Whose connection
//! broke, or who is dead, does not.

/// How often one request is sent at most. With four tries a request survives three endpoints that
/// died in the same moment.
pub const TRIES_MAX: u32 = 4;

/// What the request's method promises (RFC 9110, 9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodSafety {
    /// It only reads: GET, HEAD, OPTIONS, TRACE.
    Safe,
    /// Carried out twice in a row it does what it does once: PUT, DELETE, and any with an
    /// `Idempotency-Key` at a service that has said that it heeds it.
    Idempotent,
    /// It may have another effect each time.
    Unsafe,
}

/// Whether a request carries an `Idempotency-Key` that its service heeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdempotencyKey {
    /// It does, and the service has opted in.
    Heeded,
    /// There is none, or nobody has promised that it means anything.
    Ignored,
}

impl MethodSafety {
    /// What the method of this name promises.
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" => Self::Safe,
            "PUT" | "DELETE" => Self::Idempotent,
            _ => Self::Unsafe,
        }
    }

    /// What the request promises as a whole. A key makes it idempotent and no more: it says nothing
    /// about an old copy that is carried out late, so that after a time-out it is not sent again.
    #[must_use]
    pub fn with(self, key: IdempotencyKey) -> Self {
        match (self, key) {
            (Self::Unsafe, IdempotencyKey::Heeded) => Self::Idempotent,
            (other, IdempotencyKey::Heeded | IdempotencyKey::Ignored) => other,
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
    /// The connection broke when at least a part of the request had been written: it was reset or
    /// closed. A connection that the kernel gave up for want of answers has timed out instead.
    LostAfterSending,
    /// At least a part had been written when the centre declared the endpoint dead.
    DeclaredDead,
    /// No answer within the time for one try, or none while others answer.
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
    /// It may have had its effect already, or have it later.
    MayHaveHadEffect,
    /// The answer is one, though not a good one.
    Answered,
}

impl Attempted {
    /// Whether the request may be sent again.
    pub fn verdict(self) -> RetryVerdict {
        match (self.may_repeat(), self.body) {
            (Err(reason), _) => RetryVerdict::GiveUp(reason),
            (Ok(()), Body::Consumed) => RetryVerdict::GiveUp(GiveUp::BodyConsumed),
            (Ok(()), Body::Replayable) if self.tries >= TRIES_MAX => {
                RetryVerdict::GiveUp(GiveUp::TooManyTries)
            }
            (Ok(()), Body::Replayable) => RetryVerdict::Retry,
        }
    }

    fn may_repeat(self) -> Result<(), GiveUp> {
        match (self.failure, self.method) {
            (FailureKind::ConnectFailed | FailureKind::NotSent, _)
            | (
                FailureKind::LostAfterSending | FailureKind::DeclaredDead,
                MethodSafety::Safe | MethodSafety::Idempotent,
            )
            // An answer of a gateway type speaks of the way to the service; others are its own word.
            | (FailureKind::TimedOut | FailureKind::Answered(502..=504), MethodSafety::Safe) => {
                Ok(())
            }
            (FailureKind::LostAfterSending | FailureKind::DeclaredDead, MethodSafety::Unsafe)
            | (
                FailureKind::TimedOut | FailureKind::Answered(502..=504),
                MethodSafety::Idempotent | MethodSafety::Unsafe,
            ) => Err(GiveUp::MayHaveHadEffect),
            (FailureKind::Answered(_), _) => Err(GiveUp::Answered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: RetryVerdict = RetryVerdict::GiveUp(GiveUp::MayHaveHadEffect);
    const SAFE: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];
    const OTHER: [&str; 3] = ["POST", "PATCH", "WHATEVER"];

    fn verdict(method: MethodSafety, failure: FailureKind) -> RetryVerdict {
        let attempted = Attempted {
            method,
            body: Body::Replayable,
            failure,
            tries: 1,
        };
        attempted.verdict()
    }

    fn of(method: &str, failure: FailureKind) -> RetryVerdict {
        verdict(MethodSafety::of(method), failure)
    }

    #[test]
    fn what_was_never_sent_may_always_be_sent_again() {
        for method in SAFE.iter().chain(&OTHER).chain(&["PUT", "DELETE"]) {
            let retry = RetryVerdict::Retry;
            assert_eq!(of(method, FailureKind::ConnectFailed), retry);
            assert_eq!(of(method, FailureKind::NotSent), retry);
        }
    }

    #[test]
    fn after_a_reset_or_a_verdict_of_death_what_is_safe_or_idempotent_is_sent_again() {
        for failure in [FailureKind::LostAfterSending, FailureKind::DeclaredDead] {
            for method in SAFE.iter().chain(&["PUT", "DELETE"]) {
                assert_eq!(of(method, failure), RetryVerdict::Retry, "{method}");
            }
            for method in OTHER {
                assert_eq!(of(method, failure), NEVER, "{method}");
            }
        }
    }

    #[test]
    fn a_frozen_instance_may_still_carry_out_its_put_so_that_only_reads_are_sent_again() {
        for failure in [FailureKind::TimedOut, FailureKind::Answered(503)] {
            for method in SAFE {
                assert_eq!(of(method, failure), RetryVerdict::Retry, "{method}");
            }
            for method in OTHER.iter().chain(&["PUT", "DELETE"]) {
                assert_eq!(of(method, failure), NEVER, "{method}");
            }
        }
        let answered = RetryVerdict::GiveUp(GiveUp::Answered);
        assert_eq!(of("GET", FailureKind::Answered(500)), answered);
    }

    #[test]
    fn a_key_makes_a_post_idempotent_only_where_the_service_heeds_it() {
        let post = MethodSafety::of("POST");
        let keyed = post.with(IdempotencyKey::Heeded);
        let lost = FailureKind::LostAfterSending;
        assert_eq!(verdict(keyed, lost), RetryVerdict::Retry);
        assert_eq!(verdict(keyed, FailureKind::TimedOut), NEVER);
        assert_eq!(verdict(post.with(IdempotencyKey::Ignored), lost), NEVER);
        let get = MethodSafety::of("GET").with(IdempotencyKey::Heeded);
        assert_eq!(get, MethodSafety::Safe, "a key takes nothing away");
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
