//! The keys of `rollout`: how one version replaces another.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_ids::duration;
use mainstay_model::Share;
use mainstay_model::service::{INSTANCES_MAX, OnFailure, RolloutSpec, Step};
use mainstay_model::traffic::CanaryTraffic;
use toml::de::DeValue;

use super::matching::{cookies, headers};
use super::problem::Code;
use super::refusal::{Refused, quoted};
use super::service::{or, span};
use super::suggest::closest;
use super::units::{parse_step, parse_weight};
use super::walk::{Entry, Section};
use super::{defaults, later};

pub(super) fn default_rollout() -> RolloutSpec {
    RolloutSpec {
        step: defaults::ROLLOUT_STEP,
        hold: defaults::ROLLOUT_HOLD,
        deadline: defaults::ROLLOUT_DEADLINE,
        progress: defaults::ROLLOUT_PROGRESS,
        canary: None,
        on_failure: defaults::ROLLOUT_ON_FAILURE,
    }
}

/// The rollout, and which requests its canaries get.
pub(super) fn rollout(entry: &Entry<'_, '_>) -> Option<(RolloutSpec, Option<CanaryTraffic>)> {
    let help = Some("write for instance `rollout = { step = \"25%\", hold = \"5s\" }`".to_owned());
    let read = |s: &mut Section<'_, '_>| {
        let default = default_rollout();
        let step = s.or("step", default.step, self::step);
        let times = times(s, &default);
        let canary = s.or("canary", (None, None), self::canary);
        let on_failure = s.or("on_failure", default.on_failure, self::on_failure);
        let (hold, deadline, progress) = times?;
        let (canary, traffic) = canary?;
        let rollout = RolloutSpec {
            step: step?,
            hold,
            deadline,
            progress,
            canary,
            on_failure: on_failure?,
        };
        Some((rollout, traffic))
    };
    entry
        .section("a table", help, later::ROLLOUT, read)
        .flatten()
}

/// The three times, each longer than the one before.
fn times(s: &mut Section<'_, '_>, default: &RolloutSpec) -> Option<(Duration, Duration, Duration)> {
    let hold_entry = s.take("hold");
    let hold = or(hold_entry.as_ref(), default.hold, |e| {
        span(e, Duration::ZERO)
    });
    let deadline_entry = s.take("deadline");
    let deadline = or(deadline_entry.as_ref(), default.deadline, |e| {
        span(e, Duration::from_millis(1))
    });
    let progress_entry = s.take("progress");
    // Where only the deadline is written, the default follows it.
    let progress = or(
        progress_entry.as_ref(),
        default.progress.max(deadline.unwrap_or_default()),
        |e| span(e, Duration::from_millis(1)),
    );
    let (hold, deadline, progress) = (hold?, deadline?, progress?);
    if hold >= deadline {
        let message = format!(
            "the deadline ({}) must be longer than hold ({}): an instance is ready only after it \
             was healthy for as long as hold",
            duration::display(deadline),
            duration::display(hold)
        );
        let written = deadline_entry.as_ref().or(hold_entry.as_ref());
        let at = written.map_or_else(|| s.at().clone(), Entry::at);
        let refused = Refused::value(message).help("shorten `hold` or lengthen `deadline`");
        s.walk().refuse(&at, refused);
        return None;
    }
    if let Some(written) = &progress_entry
        && progress < deadline
    {
        let message = format!(
            "progress ({}) must not be shorter than the deadline ({}): it would never let an \
             instance have its time",
            duration::display(progress),
            duration::display(deadline)
        );
        written.refuse(Refused::value(message).help("lengthen `progress` or shorten `deadline`"));
        return None;
    }
    Some((hold, deadline, progress))
}

/// A number of instances, or a table that also says which requests they get.
fn canary(entry: &Entry<'_, '_>) -> Option<(Option<Step>, Option<CanaryTraffic>)> {
    const EXAMPLE: &str = "write for instance `canary = 1` or `canary = { weight = \"0.1%\" }`";
    if !matches!(entry.value(), DeValue::Table(_)) {
        return step(entry).map(|step| (Some(step), None));
    }
    let read = |s: &mut Section<'_, '_>| {
        let weight = s.optional("weight", |e| {
            e.text(
                "a percentage, as in `0.1%`",
                "`weight = \"0.1%\"`",
                parse_weight,
            )
        });
        let instances = s.or("instances", defaults::CANARY_INSTANCES, step);
        let headers = s.or("header", BTreeMap::new(), headers);
        let cookies = s.or("cookie", BTreeMap::new(), cookies);
        let (weight, headers, cookies) = (weight?, headers?, cookies?);
        if weight.is_none() && headers.is_empty() && cookies.is_empty() {
            let message =
                "expected `weight`, `header` or `cookie`: which requests the canaries get";
            let refused = Refused::new(Code::MissingKey, message).help(EXAMPLE);
            s.walk().refuse(s.at(), refused);
            return None;
        }
        let traffic = CanaryTraffic {
            weight: weight.unwrap_or(Share::NONE),
            headers,
            cookies,
        };
        Some((Some(instances?), Some(traffic)))
    };
    entry
        .section("a table", Some(EXAMPLE.to_owned()), later::CANARY, read)
        .flatten()
}

fn step(entry: &Entry<'_, '_>) -> Option<Step> {
    if let DeValue::Integer(_) = entry.value() {
        let count = entry.integer(1..=INSTANCES_MAX)?;
        let count = NonZeroU32::new(count).expect("the range does not hold zero");
        return Some(Step::Count(count));
    }
    let expected = "a percentage, as in `25%`, or a number of instances";
    entry
        .text(expected, "`step = \"25%\"`", parse_step)
        .map(Step::Percent)
}

fn on_failure(entry: &Entry<'_, '_>) -> Option<OnFailure> {
    let expected = "`rollback` or `pause`";
    entry.text(expected, "`on_failure = \"rollback\"`", |text| match text {
        "rollback" => Ok(OnFailure::Rollback),
        "pause" => Ok(OnFailure::Pause),
        _ => {
            let refused = Refused::value(format!("expected {expected}, found {}", quoted(text)));
            Err(match closest(text, ["rollback", "pause"]) {
                Some(meant) => refused.help(format!("did you mean `{meant}`?")),
                None => refused,
            })
        }
    })
}
