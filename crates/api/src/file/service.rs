//! The keys of a service file: which there are, what each takes, what it becomes.

use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_ids::{ServiceName, duration};
use mainstay_model::ServiceSpec;
use mainstay_model::route::{HttpMatch, PathPrefix};
use mainstay_model::service::{
    AddressSpec, Check, HealthSpec, INSTANCES_MAX, LimitsSpec, LogSpec, OnFailure, RolloutSpec,
    Slo, Step,
};
use toml::de::DeValue;

use super::problem::Code;
use super::program::{EXEC_HELP, argv, directory, environment};
use super::refusal::{At, Refused, quoted};
use super::resources::limits_of;
use super::secret::Variables;
use super::suggest::closest;
use super::units::{
    display_size, parse_address, parse_duration, parse_host, parse_path, parse_share, parse_size,
    parse_step, parse_user,
};
use super::walk::{Entry, Section, Walk};
use super::{defaults, later, limits};

/// One service on its way from the file: what the checks between services need, also of one that
/// has mistakes.
pub(super) struct Draft {
    /// The name, if it is one.
    pub(super) name: Option<ServiceName>,
    /// The address's place, and the address, if it is one.
    pub(super) address: Option<(At, Option<AddressSpec>)>,
    /// The place of `http`, and the match, if it is one.
    pub(super) http: Option<(At, Option<HttpMatch>)>,
    /// Where the program stands.
    pub(super) exec_at: At,
    /// Where the directory stands.
    pub(super) dir_at: At,
    /// The specification, if nothing in it was refused.
    pub(super) spec: Option<ServiceSpec>,
}

/// Reads the whole file. `base` is the absolute directory at which relative paths begin.
pub(super) fn file(walk: &Walk<'_>, base: &str) -> Vec<Draft> {
    let Some(tree) = walk.tree() else {
        return Vec::new();
    };
    let mut root = Section::root(walk, tree.get_ref());
    let services = root.take("service");
    let only_known_keys = root.refuse_unasked(later::FILE);
    let Some(services) = services else {
        if only_known_keys {
            let help = "a service is `[service.NAME]` with at least an `exec`";
            walk.refuse_file(Code::NoService, "the file declares no service", help);
        }
        return Vec::new();
    };
    let named = services.entries("a table of services", "`[service.orders]`");
    let Some(named) = named else {
        return Vec::new();
    };
    if named.is_empty() {
        let refused = Refused::new(Code::NoService, "the file declares no service");
        services.refuse(refused.help("a service is `[service.NAME]` with at least an `exec`"));
    }
    if let Some((_, first)) = named.get(limits::SERVICES_MAX) {
        let most = limits::SERVICES_MAX;
        let refused = Refused::new(
            Code::TooMuch,
            format!("a file declares up to {most} services"),
        );
        first.refuse(refused.help("split the file; `mainstay up` takes them one after the other"));
    }
    let named = named.into_iter().take(limits::SERVICES_MAX);
    named
        .map(|(name, entry)| service(name, &entry, base))
        .collect()
}

fn service_name(typed: &str, entry: &Entry<'_, '_>) -> Option<ServiceName> {
    let error = match ServiceName::parse(typed) {
        Ok(name) => return Some(name),
        Err(error) => error,
    };
    let refused = Refused::value(format!("{error}; found {}", quoted(typed)));
    let likely = typed.to_lowercase().replace(['_', ' ', '.'], "-");
    let refused = match ServiceName::parse(&likely) {
        Ok(likely) => refused.help(format!("did you mean `[service.{likely}]`?")),
        Err(_) => refused.help("a service's name becomes part of host names: a DNS label"),
    };
    entry.walk().refuse(&entry.at_key(), refused);
    None
}

fn service(typed: &str, entry: &Entry<'_, '_>, base: &str) -> Draft {
    let mut draft = Draft {
        name: service_name(typed, entry),
        address: None,
        http: None,
        exec_at: entry.at_key(),
        dir_at: entry.at_key(),
        spec: None,
    };
    let help = Some("a service is `[service.NAME]` with keys below it".to_owned());
    let spec = entry.section("a table", help, later::SERVICE, |s| {
        keys(s, base, &mut draft)
    });
    draft.spec = spec.flatten();
    draft
}

/// The keys of one service. The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, base: &str, draft: &mut Draft) -> Option<ServiceSpec> {
    let exec = s.required("exec", EXEC_HELP);
    let dir = s.take("dir");
    for (at, key) in [
        (&mut draft.exec_at, exec.as_ref()),
        (&mut draft.dir_at, dir.as_ref()),
    ] {
        if let Some(key) = key {
            *at = key.at();
        }
    }
    let dir = or(dir.as_ref(), base.to_owned(), |entry| {
        directory(entry, base)
    });
    // A directory that was refused is no reason to keep silent about the program.
    let dir_or_base = dir.as_deref().unwrap_or(base);
    let exec = exec.and_then(|exec| argv(&exec, dir_or_base));
    let user = s.optional("user", |e| {
        e.text("an account's name", "`user = \"shop\"`", parse_user)
    });
    let variables = s.or("env", Variables::default(), environment);

    let address = s.take("address");
    draft.address = address.map(|e| (e.at(), self::address(&e)));
    let http = s.take("http");
    draft.http = http.map(|e| (e.at(), self::http(&e)));

    let health = s.take("health");
    let health = or(health.as_ref(), default_health(), |e| {
        self::health(e, dir_or_base)
    });
    let instances = s.or("instances", defaults::INSTANCES, |e| {
        e.integer(0..=INSTANCES_MAX)
    });
    let rollout = s.take("rollout");
    let rollout = or(rollout.as_ref(), default_rollout(), self::rollout);
    let drain = s.or("drain", defaults::DRAIN, |e| span(e, Duration::ZERO));
    let grace = s.or("grace", defaults::GRACE, |e| span(e, Duration::ZERO));
    let log = s.or("log", default_log(), self::log);
    let slo = s.optional("slo", self::slo);
    let limits = s.or("limits", LimitsSpec::default(), limits_of);
    let variables = variables?;

    Some(ServiceSpec {
        name: draft.name.clone()?,
        exec: exec?,
        dir: dir?,
        user: user?,
        env: variables.texts,
        address: given(draft.address.as_ref())?,
        http: given(draft.http.as_ref())?,
        health: health?,
        instances: instances?,
        rollout: rollout?,
        drain: drain?,
        grace: grace?,
        log: log?,
        slo: slo?,
        limits: limits?,
        secrets: variables.secrets,
        artifact: None,
    })
}

/// Not there: `Some(None)`; there and refused: `None`.
#[expect(clippy::option_option, reason = "refused and not there are two things")]
fn given<T: Clone>(key: Option<&(At, Option<T>)>) -> Option<Option<T>> {
    match key {
        None => Some(None),
        Some((_, value)) => value.clone().map(Some),
    }
}

fn or<'w, 't, T>(
    entry: Option<&Entry<'w, 't>>,
    default: T,
    read: impl FnOnce(&Entry<'w, 't>) -> Option<T>,
) -> Option<T> {
    entry.map_or(Some(default), read)
}

/// A duration of at least `shortest`.
fn span(entry: &Entry<'_, '_>, shortest: Duration) -> Option<Duration> {
    let key = entry.name();
    let example = match entry.value() {
        DeValue::Integer(number) if key == "p99" => format!("`{key} = \"{number}ms\"`"),
        DeValue::Integer(number) => format!("`{key} = \"{number}s\"`"),
        _ => format!("`{key} = \"10s\"`"),
    };
    entry.text("a duration, as in `10s`", &example, |text| {
        let duration = parse_duration(text)?;
        if duration < shortest {
            let least = duration::display(shortest);
            let message = format!("`{key}` is at least {least}; found {}", quoted(text));
            return Err(Refused::value(message));
        }
        Ok(duration)
    })
}

fn count(entry: &Entry<'_, '_>) -> Option<NonZeroU32> {
    let count = entry.integer(limits::HEALTH_COUNT)?;
    Some(NonZeroU32::new(count).expect("the range does not hold zero"))
}

fn address(entry: &Entry<'_, '_>) -> Option<AddressSpec> {
    let example = "`address = \"auto\"`";
    entry.text(
        "an address, as in `127.96.0.10:8080`",
        example,
        parse_address,
    )
}

fn http(entry: &Entry<'_, '_>) -> Option<HttpMatch> {
    let help = match entry.value() {
        DeValue::String(text) if text.starts_with('/') => {
            format!("write `http = {{ path = \"{text}\" }}`")
        }
        DeValue::String(text) => format!("write `http = {{ host = \"{text}\" }}`"),
        _ => {
            "write for instance `http = { host = \"orders.example.com\", path = \"/\" }`".to_owned()
        }
    };
    let read = |s: &mut Section<'_, '_>| {
        let host = s.optional("host", |e| {
            e.text("a host name", "`host = \"orders.example.com\"`", parse_host)
        });
        let root = PathPrefix::parse(defaults::HTTP_PATH).expect("the default is a path");
        let path = s.or("path", root, |e| {
            e.text("a path", "`path = \"/\"`", parse_path)
        });
        Some(HttpMatch {
            host: host?,
            path: path?,
        })
    };
    entry
        .section("a table", Some(help), later::NONE, read)
        .flatten()
}

fn default_health() -> HealthSpec {
    HealthSpec {
        check: Check::Tcp,
        every: defaults::HEALTH_EVERY,
        timeout: defaults::HEALTH_TIMEOUT,
        fall: defaults::HEALTH_FALL,
        rise: defaults::HEALTH_RISE,
    }
}

fn health(entry: &Entry<'_, '_>, dir: &str) -> Option<HealthSpec> {
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
        Some(HealthSpec {
            check: check?,
            every: every?,
            timeout: timeout?,
            fall: fall?,
            rise: rise?,
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

fn default_rollout() -> RolloutSpec {
    RolloutSpec {
        step: defaults::ROLLOUT_STEP,
        hold: defaults::ROLLOUT_HOLD,
        deadline: defaults::ROLLOUT_DEADLINE,
        on_failure: defaults::ROLLOUT_ON_FAILURE,
    }
}

fn rollout(entry: &Entry<'_, '_>) -> Option<RolloutSpec> {
    let help = Some("write for instance `rollout = { step = \"25%\", hold = \"5s\" }`".to_owned());
    let read = |s: &mut Section<'_, '_>| {
        let default = default_rollout();
        let step = s.or("step", default.step, self::step);
        let hold_entry = s.take("hold");
        let hold = or(hold_entry.as_ref(), default.hold, |e| {
            span(e, Duration::ZERO)
        });
        let deadline_entry = s.take("deadline");
        let deadline = or(deadline_entry.as_ref(), default.deadline, |e| {
            span(e, Duration::from_millis(1))
        });
        let on_failure = s.or("on_failure", default.on_failure, self::on_failure);
        if let (Some(hold), Some(deadline)) = (hold, deadline)
            && hold >= deadline
        {
            let message = format!(
                "the deadline ({}) must be longer than hold ({}): an instance is ready only after \
                 it was healthy for as long as hold",
                duration::display(deadline),
                duration::display(hold)
            );
            let written = deadline_entry.as_ref().or(hold_entry.as_ref());
            let at = written.map_or_else(|| s.at().clone(), Entry::at);
            let refused = Refused::value(message).help("shorten `hold` or lengthen `deadline`");
            s.walk().refuse(&at, refused);
            return None;
        }
        Some(RolloutSpec {
            step: step?,
            hold: hold?,
            deadline: deadline?,
            on_failure: on_failure?,
        })
    };
    entry
        .section("a table", help, later::ROLLOUT, read)
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

fn default_log() -> LogSpec {
    LogSpec {
        size: defaults::LOG_SIZE,
        keep: defaults::LOG_KEEP,
    }
}

fn log(entry: &Entry<'_, '_>) -> Option<LogSpec> {
    let help = Some("write for instance `log = { size = \"10MiB\", keep = 3 }`".to_owned());
    let read = |s: &mut Section<'_, '_>| {
        let default = default_log();
        let size = s.or("size", default.size, log_size);
        let keep = s.or("keep", default.keep, |e| e.integer(limits::LOG_KEEP));
        Some(LogSpec {
            size: size?,
            keep: keep?,
        })
    };
    entry.section("a table", help, later::NONE, read).flatten()
}

fn log_size(entry: &Entry<'_, '_>) -> Option<u64> {
    entry.text("a size, as in `10MiB`", "`size = \"10MiB\"`", |text| {
        let size = parse_size(text)?;
        if limits::LOG_SIZE.contains(&size) {
            return Ok(size);
        }
        let (low, high) = (limits::LOG_SIZE.start(), limits::LOG_SIZE.end());
        Err(Refused::value(format!(
            "a log's size is from {} to {}; found {}",
            display_size(*low),
            display_size(*high),
            quoted(text)
        )))
    })
}

fn slo(entry: &Entry<'_, '_>) -> Option<Slo> {
    const EXAMPLE: &str = "write for instance `slo = { success = \"99.95%\", p99 = \"250ms\" }`";
    let read = |s: &mut Section<'_, '_>| {
        let success = s.required("success", EXAMPLE);
        let success = success.and_then(|e| {
            e.text(
                "a percentage, as in `99.95%`",
                "`success = \"99.95%\"`",
                parse_share,
            )
        });
        let p99 = s.required("p99", EXAMPLE);
        let p99 = p99.and_then(|e| span(&e, Duration::from_millis(1)));
        Some(Slo {
            success_ppm: success?,
            p99: p99?,
        })
    };
    entry
        .section("a table", Some(EXAMPLE.to_owned()), later::NONE, read)
        .flatten()
}
