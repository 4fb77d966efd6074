//! The keys of `health`: how to tell that an instance can serve.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_model::service::{Check, HealthSpec};
use toml::de::DeValue;

use super::problem::Code;
use super::program::argv;
use super::refusal::Refused;
use super::service::span;
use super::units::parse_path;
use super::walk::{Entry, Section};
use super::{defaults, later, limits};

pub(super) fn default_health() -> HealthSpec {
    HealthSpec {
        check: Check::Tcp,
        every: defaults::HEALTH_EVERY,
        timeout: defaults::HEALTH_TIMEOUT,
        fall: defaults::HEALTH_FALL,
        rise: defaults::HEALTH_RISE,
        start: Some(defaults::HEALTH_START),
        restart: Some(defaults::HEALTH_RESTART),
    }
}

pub(super) fn health(entry: &Entry<'_, '_>, dir: &str) -> Option<HealthSpec> {
    let help = match entry.value() {
        DeValue::String(text) if text.starts_with('/') => {
            format!("write `health = {{ get = \"{text}\" }}`")
        }
        _ => "write for instance `health = { get = \"/health\", every = \"1s\" }`".to_owned(),
    };
    let read = |s: &mut Section<'_, '_>| {
        let default = default_health();
        let check = check(s, dir);
        let every = s.or("every", default.every, |e| {
            span(e, limits::HEALTH_EVERY_MIN)
        });
        let timeout = s.or("timeout", default.timeout, |e| {
            span(e, Duration::from_millis(1))
        });
        let fall = s.or("fall", default.fall, count);
        let rise = s.or("rise", default.rise, count);
        let start = s.or("start", default.start, span_or_never);
        let restart = s.or("restart", default.restart, span_or_never);
        Some(HealthSpec {
            check: check?,
            every: every?,
            timeout: timeout?,
            fall: fall?,
            rise: rise?,
            start: start?,
            restart: restart?,
        })
    };
    entry
        .section("a table", Some(help), later::HEALTH, read)
        .flatten()
}

/// The one check of a service; without any, its port must accept connections.
fn check(s: &mut Section<'_, '_>, dir: &str) -> Option<Check> {
    let get = s.take("get");
    let tcp = s.take("tcp");
    let exec = s.take("exec");
    let mut given: Vec<&Entry<'_, '_>> = [&get, &tcp, &exec].into_iter().flatten().collect();
    given.sort_by_key(|entry| entry.at_key().place.span.start);
    let one = match given.as_slice() {
        [first, second, ..] => {
            let (first, second) = (*first, *second);
            let message = format!(
                "a service has one check, and `{}` is one already (line {})",
                first.name(),
                first.at_key().place.line
            );
            let refused = Refused::new(Code::Conflict, message).also(&first.at_key());
            let refused = refused.help("keep the one that tells best that requests are answered");
            s.walk().refuse(&second.at_key(), refused);
            false
        }
        [] | [_] => true,
    };
    // Each is read, so that what is wrong inside of it is told too.
    let get = get.map(|e| {
        e.text("a path", "`get = \"/health\"`", parse_path)
            .map(Check::Http)
    });
    let tcp = tcp.map(|e| tcp_check(&e));
    let exec = exec.map(|e| argv(&e, dir).map(Check::Exec));
    get.or(tcp)
        .or(exec)
        .unwrap_or(Some(Check::Tcp))
        .filter(|_| one)
}

fn tcp_check(entry: &Entry<'_, '_>) -> Option<Check> {
    let help = "write `tcp = true`, or `get = \"/health\"` or `exec = [..]` instead";
    match entry.value() {
        DeValue::Boolean(true) => Some(Check::Tcp),
        DeValue::Boolean(false) => {
            let refused = Refused::value("`tcp` is `true` or not there: a service has a check");
            entry.refuse(refused.help(help));
            None
        }
        _ => {
            entry.wrong_type("`true`", Some(help.to_owned()));
            None
        }
    }
}

fn count(entry: &Entry<'_, '_>) -> Option<NonZeroU32> {
    let count = entry.integer(limits::HEALTH_COUNT)?;
    Some(NonZeroU32::new(count).expect("the range does not hold zero"))
}

/// A duration, or `"never"`.
#[expect(clippy::option_option, reason = "refused and never are two things")]
fn span_or_never(entry: &Entry<'_, '_>) -> Option<Option<Duration>> {
    match entry.value() {
        DeValue::String(text) if text.as_ref() == "never" => Some(None),
        _ => span(entry, Duration::from_millis(1)).map(Some),
    }
}
