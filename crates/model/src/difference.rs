//! What two specifications of a service say differently, by the keys of the service file.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::time::Duration;

use mainstay_ids::{SecretName, ServiceName, Timestamp, duration};

use crate::report::Bytes;
use crate::rewrite::{PathRewrite, Redirect, Rewrite};
use crate::route::Wanted;
use crate::service::{
    AddressSpec, Artifact, Check, HealthSpec, LimitsSpec, OnFailure, RolloutSpec, Schedule, Step,
};
use crate::traffic::{CanaryTraffic, Forwarded, Sticky};
use crate::{HttpMatch, HttpMatches, ServiceSpec, Template, Traffic};

/// One key of the service file that differs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// The key, as `health.every`.
    pub key: String,
    /// What it was; `None`: it was not there. Of a secret only its name, as in the file.
    pub from: Option<String>,
    /// What it would be; `None`: it would not be there.
    pub to: Option<String>,
}

/// The keys of one specification with their values, as text.
type Keys = BTreeMap<String, String>;

/// What differs from `old` to `new`, by key. The wanted number is no part of it.
pub fn differences(old: &ServiceSpec, new: &ServiceSpec) -> Vec<Difference> {
    let (old, new) = (keys(old), keys(new));
    let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differs = all.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differs
        .map(|key| Difference {
            key: key.clone(),
            from: old.get(key).cloned(),
            to: new.get(key).cloned(),
        })
        .collect()
}

fn keys(spec: &ServiceSpec) -> Keys {
    // No `..`: a new field must be decided here.
    let ServiceSpec {
        name: _,      // the same in both
        instances: _, // no part of a version
        exec,
        dir,
        user,
        env,
        address,
        http,
        traffic,
        health,
        rollout,
        drain,
        grace,
        log,
        limits,
        secrets,
        slo,
        needs,
        before,
        schedule,
        artifact,
    } = spec;
    let mut keys = Keys::new();
    argv(&mut keys, "exec", exec);
    argv(&mut keys, "before", before);
    set(&mut keys, "dir", quoted(dir));
    some(&mut keys, "user", user.as_ref().map(|user| quoted(user)));
    for (name, value) in env {
        let value = quoted(&value.to_string());
        set(&mut keys, &format!("env.{name}"), value);
    }
    for (name, secret) in secrets {
        set(&mut keys, &format!("env.{name}"), named(secret));
    }
    of_reach(&mut keys, address.as_ref(), http.as_ref());
    of_traffic(&mut keys, traffic);
    of_health(&mut keys, health);
    of_rollout(&mut keys, rollout);
    set(&mut keys, "drain", time(*drain));
    set(&mut keys, "grace", time(*grace));
    set(&mut keys, "log.size", Bytes(log.size));
    set(&mut keys, "log.keep", log.keep);
    of_limits(&mut keys, limits);
    some(
        &mut keys,
        "slo.success",
        slo.map(|slo| format!("{} per million", slo.success_ppm)),
    );
    some(&mut keys, "slo.p99", slo.map(|slo| time(slo.p99)));
    let needed: Vec<&str> = needs.iter().map(ServiceName::as_str).collect();
    some(
        &mut keys,
        "needs",
        (!needed.is_empty()).then(|| needed.join(", ")),
    );
    of_schedule(&mut keys, schedule.as_ref());
    some(
        &mut keys,
        "the program's file",
        artifact.as_ref().map(found),
    );
    keys
}

fn of_reach(keys: &mut Keys, address: Option<&AddressSpec>, http: Option<&HttpMatches>) {
    let address = address.map(|address| match address {
        AddressSpec::Auto => quoted("auto"),
        AddressSpec::Fixed(address) => quoted(&address.to_string()),
    });
    some(keys, "address", address);
    let Some(http) = http else {
        return;
    };
    let one = http.len() == 1;
    for (index, found) in http.iter().enumerate() {
        let key = if one {
            String::from("http")
        } else {
            format!("http[{index}]")
        };
        of_match(keys, &key, found);
    }
}

fn of_match(keys: &mut Keys, at: &str, found: &HttpMatch) {
    let HttpMatch {
        host,
        path,
        methods,
        headers,
        cookies,
    } = found;
    let host = host.as_ref().map(|host| quoted(&host.to_string()));
    some(keys, &format!("{at}.host"), host);
    set(keys, &format!("{at}.path"), quoted(&path.to_string()));
    let named: Vec<String> = methods
        .iter()
        .map(|method| quoted(method.as_str()))
        .collect();
    let named = (!named.is_empty()).then(|| format!("[{}]", named.join(", ")));
    some(keys, &format!("{at}.methods"), named);
    wanted(keys, &format!("{at}.headers"), headers);
    wanted(keys, &format!("{at}.cookies"), cookies);
}

fn wanted<N: Display>(keys: &mut Keys, at: &str, all: &Wanted<N>) {
    for (name, value) in all {
        let value = value.as_ref().map(|value| quoted(value.as_str()));
        let value = value.unwrap_or_else(|| String::from("true"));
        set(keys, &format!("{at}.{name}"), value);
    }
}

fn of_traffic(keys: &mut Keys, traffic: &Traffic) {
    let Traffic {
        retry,
        sticky,
        rewrite,
        redirects,
        canary,
        trace,
        timeouts,
        queue,
        requests,
    } = traffic;
    set(keys, "retry.idempotency_key", retry.idempotency_key);
    set(keys, "retry.hedge", retry.hedge);
    match sticky {
        Some(Sticky::Cookie { name, ttl }) => {
            set(keys, "sticky.cookie", quoted(name.as_str()));
            some(keys, "sticky.ttl", ttl.map(time));
        }
        Some(Sticky::Header(name)) => set(keys, "sticky.header", quoted(name.as_str())),
        Some(Sticky::Source) => set(keys, "sticky.source", true),
        None => {}
    }
    of_rewrite(keys, rewrite);
    for (index, Redirect { on, to, status }) in redirects.iter().enumerate() {
        let at = format!("redirect[{index}]");
        of_match(keys, &at, on);
        set(keys, &format!("{at}.to"), quoted(&to.to_string()));
        set(keys, &format!("{at}.status"), status.code());
    }
    if let Some(CanaryTraffic {
        weight,
        headers,
        cookies,
    }) = canary
    {
        set(keys, "rollout.canary.weight", quoted(&weight.to_string()));
        wanted(keys, "rollout.canary.header", headers);
        wanted(keys, "rollout.canary.cookie", cookies);
    }
    let forwarded = match trace.forwarded {
        Forwarded::X => "x",
        Forwarded::Rfc7239 => "rfc7239",
        Forwarded::Both => "both",
    };
    set(keys, "forwarded", quoted(forwarded));
    set(keys, "via", trace.via);
    some(keys, "timeouts.connect", timeouts.connect.map(time));
    some(keys, "timeouts.answer", timeouts.answer.map(time));
    some(keys, "timeouts.request", timeouts.request.map(time));
    some(keys, "queue.len", queue.len);
    some(keys, "queue.time", queue.time.map(time));
    some(keys, "limits.requests", *requests);
}

fn of_rewrite(keys: &mut Keys, rewrite: &Rewrite) {
    let Rewrite {
        host,
        path,
        request,
        response,
    } = rewrite;
    let host = host.as_ref().map(|host| quoted(host.as_str()));
    some(keys, "rewrite.host", host);
    match path {
        Some(PathRewrite::Strip(from)) => {
            set(keys, "rewrite.path.strip", quoted(from.as_str()));
        }
        Some(PathRewrite::Replace(from, to)) => {
            let both = format!("[{}, {}]", quoted(from.as_str()), quoted(to.as_str()));
            set(keys, "rewrite.path.replace", both);
        }
        None => {}
    }
    for (at, changes) in [("rewrite.request", request), ("rewrite.response", response)] {
        let removed: Vec<String> = changes
            .remove
            .iter()
            .map(|name| quoted(name.as_str()))
            .collect();
        let removed = (!removed.is_empty()).then(|| format!("[{}]", removed.join(", ")));
        some(keys, &format!("{at}.remove"), removed);
        for (how, values) in [("set", &changes.set), ("add", &changes.add)] {
            for (name, value) in values {
                set(
                    keys,
                    &format!("{at}.{how}.{name}"),
                    quoted(&value.to_string()),
                );
            }
        }
    }
}

fn of_schedule(keys: &mut Keys, schedule: Option<&Schedule>) {
    if let Some(Schedule { cron, deadline }) = schedule {
        set(keys, "schedule.cron", quoted(&cron.to_string()));
        set(keys, "schedule.deadline", time(*deadline));
    }
}

/// What was found where `exec` points.
fn found(artifact: &Artifact) -> String {
    let built = Timestamp(artifact.modified_ns / 1_000_000);
    format!("{} bytes of {built}", artifact.len)
}

fn of_health(keys: &mut Keys, health: &HealthSpec) {
    let HealthSpec {
        check,
        every,
        timeout,
        fall,
        rise,
        start,
        restart,
    } = health;
    match check {
        Check::Http(path) => set(keys, "health.get", quoted(&path.to_string())),
        Check::Tcp => set(keys, "health.tcp", true),
        Check::Exec(words) => argv(keys, "health.exec", words),
    }
    set(keys, "health.every", time(*every));
    set(keys, "health.timeout", time(*timeout));
    set(keys, "health.fall", fall);
    set(keys, "health.rise", rise);
    some(keys, "health.start", start.map(time));
    some(keys, "health.restart", restart.map(time));
}

fn of_rollout(keys: &mut Keys, rollout: &RolloutSpec) {
    let RolloutSpec {
        step,
        hold,
        deadline,
        progress,
        canary,
        on_failure,
    } = rollout;
    let share = |step: &Step| match step {
        Step::Count(count) => count.to_string(),
        Step::Percent(percent) => format!("\"{percent}%\""),
    };
    set(keys, "rollout.step", share(step));
    some(keys, "rollout.canary", canary.as_ref().map(share));
    set(keys, "rollout.hold", time(*hold));
    set(keys, "rollout.deadline", time(*deadline));
    set(keys, "rollout.progress", time(*progress));
    let on_failure = match on_failure {
        OnFailure::Rollback => "\"rollback\"",
        OnFailure::Pause => "\"pause\"",
    };
    set(keys, "rollout.on_failure", on_failure);
}

fn of_limits(keys: &mut Keys, limits: &LimitsSpec) {
    let LimitsSpec {
        cpu_thousandths,
        memory_bytes,
        pids,
    } = limits;
    let cpu = cpu_thousandths.map(|cpu| format!("{}.{:03}", cpu / 1000, cpu % 1000));
    some(keys, "limits.cpu", cpu);
    some(keys, "limits.memory", memory_bytes.map(Bytes));
    some(keys, "limits.pids", *pids);
}

fn set(keys: &mut Keys, key: &str, value: impl Display) {
    keys.insert(key.into(), value.to_string());
}

fn some(keys: &mut Keys, key: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        set(keys, key, value);
    }
}

fn argv(keys: &mut Keys, key: &str, words: &[Template]) {
    if !words.is_empty() {
        let words: Vec<String> = words.iter().map(|word| quoted(&word.to_string())).collect();
        set(keys, key, format!("[{}]", words.join(", ")));
    }
}

/// Never the value: that is nowhere in a specification.
fn named(secret: &SecretName) -> String {
    format!("\"secret:{secret}\"")
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn time(time: Duration) -> String {
    format!("\"{}\"", duration::display(time))
}
