//! The keys of a service file: which there are, what each takes, what it becomes.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_ids::{ServiceName, duration};
use mainstay_model::service::{
    AddressSpec, INSTANCES_MAX, LimitsSpec, LogSpec, RolloutSpec, Schedule, Slo,
};
use mainstay_model::{ServiceSpec, Template, Traffic};
use toml::de::DeValue;

use super::matching::{Claims, http};
use super::problem::Code;
use super::program::{EXEC_HELP, argv, directory, environment};
use super::refusal::{At, Refused, quoted};
use super::resources::limits_of;
use super::secret::Variables;
use super::traffic::{Elsewhere, traffic};
use super::units::{
    display_size, parse_address, parse_duration, parse_share, parse_size, parse_user,
};
use super::walk::{Entry, Section, Walk};
use super::{defaults, health, later, limits, order, rollout};

/// One service on its way from the file: what the checks between services need, also of one that
/// has mistakes.
pub(super) struct Draft {
    /// The name, if it is one.
    pub(super) name: Option<ServiceName>,
    /// The address's place, and the address, if it is one.
    pub(super) address: Option<(At, Option<AddressSpec>)>,
    /// The requests that it claims, by `http` and by `redirect`.
    pub(super) claims: Claims,
    /// What it needs, each with its place.
    pub(super) needs: Vec<(ServiceName, At)>,
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
        claims: Claims::new(),
        needs: Vec::new(),
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
    draft.exec_at = exec.as_ref().map_or(draft.exec_at.clone(), Entry::at);
    draft.dir_at = dir.as_ref().map_or(draft.dir_at.clone(), Entry::at);
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
    let http = s.optional("http", |e| http(e, &mut draft.claims));

    let health = s.take("health");
    let health = or(health.as_ref(), health::default_health(), |e| {
        health::health(e, dir_or_base)
    });
    let instances = s.or("instances", defaults::INSTANCES, |e| {
        e.integer(0..=INSTANCES_MAX)
    });
    let drain = s.or("drain", defaults::DRAIN, |e| span(e, Duration::ZERO));
    let grace = s.or("grace", defaults::GRACE, |e| span(e, Duration::ZERO));
    let log = s.or("log", default_log(), self::log);
    let slo = s.optional("slo", self::slo);
    let (rollout, limits, traffic) = behaviour(s, &mut draft.claims);

    let (needs, before, schedule) = starts(s, dir_or_base, draft);

    let variables = variables?;
    Some(ServiceSpec {
        name: draft.name.clone()?,
        exec: exec?,
        dir: dir?,
        user: user?,
        env: variables.texts,
        address: given(draft.address.as_ref())?,
        http: http?,
        traffic: traffic?,
        health: health?,
        instances: if schedule.as_ref()?.is_some() {
            0
        } else {
            instances?
        },
        rollout: rollout?,
        drain: drain?,
        grace: grace?,
        log: log?,
        slo: slo?,
        needs: needs?,
        before: before?,
        schedule: schedule?,
        limits: limits?,
        secrets: variables.secrets,
        artifact: None,
    })
}

/// The keys of which parts are for the agent and the control centre, and parts for the gateway.
fn behaviour(
    s: &mut Section<'_, '_>,
    claims: &mut Claims,
) -> (Option<RolloutSpec>, Option<LimitsSpec>, Option<Traffic>) {
    let rollout = s.or(
        "rollout",
        (rollout::default_rollout(), None),
        rollout::rollout,
    );
    let limits = s.or("limits", (LimitsSpec::default(), None), limits_of);
    let (rollout, canary) = rollout.unzip();
    let (limits, requests) = limits.unzip();
    let elsewhere = requests.zip(canary);
    let elsewhere = elsewhere.map(|(requests, canary)| Elsewhere { requests, canary });
    let traffic = traffic(s, claims, elsewhere);
    (rollout, limits, traffic)
}

/// The keys that say what is started when.
#[expect(
    clippy::type_complexity,
    reason = "three keys, each of which may be refused"
)]
fn starts(
    s: &mut Section<'_, '_>,
    dir: &str,
    draft: &mut Draft,
) -> (
    Option<BTreeSet<ServiceName>>,
    Option<Vec<Template>>,
    Option<Option<Schedule>>,
) {
    let needs = s.or("needs", BTreeSet::new(), |e| {
        order::needs(e, &mut draft.needs)
    });
    let before = s.or("before", Vec::new(), |e| argv(e, dir));
    let schedule = match s.take("schedule") {
        Some(entry) => order::schedule(&entry, s).map(Some),
        None => Some(None),
    };
    (needs, before, schedule)
}

/// Not there: `Some(None)`; there and refused: `None`.
#[expect(clippy::option_option, reason = "refused and not there are two things")]
fn given<T: Clone>(key: Option<&(At, Option<T>)>) -> Option<Option<T>> {
    match key {
        None => Some(None),
        Some((_, value)) => value.clone().map(Some),
    }
}

pub(crate) fn or<'w, 't, T>(
    entry: Option<&Entry<'w, 't>>,
    default: T,
    read: impl FnOnce(&Entry<'w, 't>) -> Option<T>,
) -> Option<T> {
    entry.map_or(Some(default), read)
}

/// A duration of at least `shortest`.
pub(crate) fn span(entry: &Entry<'_, '_>, shortest: Duration) -> Option<Duration> {
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

fn address(entry: &Entry<'_, '_>) -> Option<AddressSpec> {
    let example = "`address = \"auto\"`";
    entry.text(
        "an address, as in `127.96.0.10:8080`",
        example,
        parse_address,
    )
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
