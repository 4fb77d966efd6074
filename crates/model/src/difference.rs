//! What two specifications of a service say differently, by the keys of the service file.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::time::Duration;

use mainstay_ids::{SecretName, ServiceName, Timestamp, duration};

use crate::report::Bytes;
use crate::service::{
    AddressSpec, Artifact, Check, HealthSpec, LimitsSpec, OnFailure, RolloutSpec, Schedule, Step,
};
use crate::{HttpMatch, ServiceSpec, Template};

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

fn of_reach(keys: &mut Keys, address: Option<&AddressSpec>, http: Option<&HttpMatch>) {
    let address = address.map(|address| match address {
        AddressSpec::Auto => quoted("auto"),
        AddressSpec::Fixed(address) => quoted(&address.to_string()),
    });
    some(keys, "address", address);
    if let Some(HttpMatch { host, path }) = http {
        let host = host.as_ref().map(|host| quoted(host.as_str()));
        some(keys, "http.host", host);
        set(keys, "http.path", quoted(&path.to_string()));
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
