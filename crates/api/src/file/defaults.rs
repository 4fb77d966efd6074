//! What holds for a key that is not written. The schema and the reference page print these.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_model::rewrite::RedirectStatus;
use mainstay_model::service::{OnFailure, Step};
use mainstay_model::traffic::Forwarded;

const fn not_zero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("the defaults are not zero")
}

/// One instance: what a user expects who has not thought of more.
pub const INSTANCES: u32 = 1;
/// `http.path`: everything of the host.
pub const HTTP_PATH: &str = "/";
/// `health.every`: a dead instance that refuses connections is noticed by the gateway at once, so
/// that probes are for those that are alive and ill.
pub const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// `health.timeout`: a probe that takes longer than the time between two means nothing good.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// `health.fall`: one lost probe is no reason yet.
pub const HEALTH_FALL: NonZeroU32 = not_zero(2);
/// `health.rise`.
pub const HEALTH_RISE: NonZeroU32 = not_zero(1);
/// `health.start`: as long as a rollout waits for a new instance.
pub const HEALTH_START: Duration = Duration::from_mins(1);
/// `health.restart`: long enough for most that heals by itself.
pub const HEALTH_RESTART: Duration = Duration::from_mins(1);
/// `rollout.step`: a bad version meets a quarter of the instances at most.
pub const ROLLOUT_STEP: Step = Step::Percent(not_zero(25));
/// `rollout.hold`: long enough for a program that dies of its first requests to do so.
pub const ROLLOUT_HOLD: Duration = Duration::from_secs(5);
/// `rollout.deadline`: a program that warms up for longer says so in its file.
pub const ROLLOUT_DEADLINE: Duration = Duration::from_mins(1);
/// `rollout.progress`: ten instances may need their whole time one after the other.
pub const ROLLOUT_PROGRESS: Duration = mainstay_model::service::PROGRESS;
/// `schedule.deadline`: whoever runs for longer says so in the file.
pub const SCHEDULE_DEADLINE: Duration = Duration::from_hours(1);
/// `rollout.canary.instances`: one is enough to see with.
pub const CANARY_INSTANCES: Step = Step::Count(not_zero(1));
/// `retry.idempotency_key`: only the service knows whether it keeps the keys that it has seen.
pub const RETRY_IDEMPOTENCY_KEY: bool = false;
/// `retry.hedge`: what may be sent twice anyway.
pub const RETRY_HEDGE: bool = true;
/// `forwarded`: what nearly every framework reads by itself.
pub const FORWARDED: Forwarded = Forwarded::X;
/// `via`: RFC 9110, 7.6.3 wants it of a gateway.
pub const VIA: bool = true;
/// `redirect.status`: a mistake in one that is for ever stays in browsers for ever.
pub const REDIRECT_STATUS: RedirectStatus = RedirectStatus::Found;
/// `rollout.on_failure`: the version that worked.
pub const ROLLOUT_ON_FAILURE: OnFailure = OnFailure::Rollback;
/// `drain`: longer than nearly every request.
pub const DRAIN: Duration = Duration::from_secs(30);
/// `grace`: what most programs and init systems are used to.
pub const GRACE: Duration = Duration::from_secs(10);
/// `log.size`: with [`LOG_KEEP`], 40 MiB per instance at most.
pub const LOG_SIZE: u64 = 10 * 1024 * 1024;
/// `log.keep`.
pub const LOG_KEEP: u32 = 3;
