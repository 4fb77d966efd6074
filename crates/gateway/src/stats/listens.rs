//! Rows of the listeners, as HAProxy has them of a `listen`: a frontend, its servers, a backend.

use std::sync::Arc;

use mainstay_control::listen::Standing;
use mainstay_ids::Instant;
use mainstay_model::listen::{Mode as ListenMode, Rank};

use super::gather::{self, Key};
use super::past::{Past, Subject};
use super::rows::{Checks, Errors, Kind, Level, Mode, Roles, Row, Status, Verdict};
use crate::endpoint::EndpointState;
use crate::listen::snapshot::{ListenSnapshot, ServerSnapshot};

/// All listeners as of one moment.
pub(crate) type Listeners = Arc<[ListenSnapshot]>;

/// What stands before the name of a listener that has the name of a service: names of services have
/// no full stop.
const PREFIX: &str = "listen.";

/// The name under which a listener is shown, `taken` by something else or not.
pub(crate) fn shown_name(listen: &ListenSnapshot, taken: impl Fn(&str) -> bool) -> String {
    let name = listen.name.as_str();
    if taken(name) {
        format!("{PREFIX}{name}")
    } else {
        name.to_owned()
    }
}

/// A row with nothing in it.
fn blank(listen: &ListenSnapshot, proxy: &str, kind: Kind) -> Row {
    Row {
        kind,
        proxy: proxy.to_owned(),
        name: String::new(),
        mode: match listen.mode {
            ListenMode::Tcp => Mode::Tcp,
            ListenMode::Http => Mode::Http,
        },
        address: None,
        status: Status::Open,
        since: std::time::Duration::ZERO,
        weight: None,
        roles: Roles::default(),
        queue: None,
        sessions: Level::default(),
        session_flow: super::rows::Flow::default(),
        requests: None,
        bytes_in: 0,
        bytes_out: 0,
        responses: [0; 6],
        errors: Errors::default(),
        checks: None,
        times: None,
        idle: None,
        connects: 0,
    }
}

/// Where clients come in.
pub(crate) fn frontend(
    listen: &ListenSnapshot,
    proxy: &str,
    past: &mut Past<Key>,
    now: Instant,
) -> Row {
    let past = past.of(Key::Listen(listen.name.clone()), now);
    let row = match &listen.http {
        Some(http) => {
            let limit = listen.sessions_max.into();
            gather::frontend_row(proxy.to_owned(), &http.frontend, limit, past, now)
        }
        None => blank(listen, proxy, Kind::Frontend),
    };
    let is_bound = listen.binds.iter().all(|bind| bind.failing.is_none());
    let status = if is_bound {
        Status::Open
    } else {
        Status::Unbound
    };
    Row {
        name: "FRONTEND".to_owned(),
        address: listen.binds.first().map(|bind| bind.address),
        status,
        since: past.status(now, status),
        sessions: Level {
            now: listen.sessions.into(),
            max: listen.sessions_high.into(),
            limit: Some(listen.sessions_max.into()),
        },
        session_flow: past.sessions(now, listen.sessions_total),
        bytes_in: listen.bytes_in,
        bytes_out: listen.bytes_out,
        errors: Errors {
            denied: listen.refused + row.errors.denied,
            ..row.errors
        },
        ..row
    }
}

/// The servers together, and each.
pub(crate) fn backend(
    listen: &ListenSnapshot,
    proxy: &str,
    past: &mut Past<Key>,
    now: Instant,
) -> Vec<Row> {
    let servers = listen.servers.iter().enumerate();
    let servers: Vec<Row> = servers
        .map(|(at, one)| {
            let http = listen.http.as_ref();
            let state = http.and_then(|http| http.servers.get(at));
            server(listen, (one, state.map(Arc::as_ref)), proxy, past, now)
        })
        .collect();
    let past = past.of(Key::ListenServers(listen.name.clone()), now);
    let taking = listen.servers.iter().filter(|one| one.standing.takes_new());
    let mut roles = Roles::default();
    let mut weight = 0;
    for one in taking {
        match one.rank {
            Rank::Main => roles.active += 1,
            Rank::Backup => roles.backup += 1,
        }
        weight += u64::from(one.weight);
    }
    let status = if roles.active + roles.backup > 0 {
        Status::Up
    } else {
        Status::Down
    };
    let row = match &listen.http {
        Some(http) => gather::backend_row(proxy, &http.counts, &servers, past, now),
        None => carried_by_all(listen, proxy, &servers, past, now),
    };
    let row = Row {
        name: "BACKEND".to_owned(),
        status,
        since: past.status(now, status),
        weight: Some(weight),
        roles,
        checks: Some(past.checks(now, String::new())),
        ..row
    };
    [row].into_iter().chain(servers).collect()
}

/// What sessions at all servers together show.
fn carried_by_all(
    listen: &ListenSnapshot,
    proxy: &str,
    servers: &[Row],
    past: &mut Subject,
    now: Instant,
) -> Row {
    let sum = |of: fn(&Row) -> u64| servers.iter().map(of).sum::<u64>();
    let in_use = sum(|row| row.sessions.now);
    let waiting = u64::from(listen.sessions).saturating_sub(in_use);
    Row {
        queue: Some(Level {
            now: waiting,
            // Looked at once a second.
            max: past.highest(waiting),
            limit: None,
        }),
        sessions: Level {
            now: in_use,
            max: listen.sessions_high.into(),
            limit: Some(listen.sessions_max.into()),
        },
        session_flow: past.sessions(now, sum(|row| row.session_flow.total)),
        bytes_in: listen.bytes_in,
        bytes_out: listen.bytes_out,
        errors: Errors {
            connect: sum(|row| row.errors.connect),
            response: listen.unserved,
            retries: sum(|row| row.errors.retries),
            redispatches: sum(|row| row.errors.redispatches),
            ..Errors::default()
        },
        idle: past.idle(now),
        connects: sum(|row| row.connects),
        ..blank(listen, proxy, Kind::Backend)
    }
}

fn server(
    listen: &ListenSnapshot,
    (one, state): (&ServerSnapshot, Option<&EndpointState>),
    proxy: &str,
    past: &mut Past<Key>,
    now: Instant,
) -> Row {
    let key = Key::ListenServer(listen.name.clone(), one.name.clone());
    let past = past.of(key, now);
    let row = match state {
        Some(state) => Row {
            proxy: proxy.to_owned(),
            ..gather::server_row(state, past, now)
        },
        None => carried(listen, one, proxy, past, now),
    };
    Row {
        name: one.name.to_string(),
        address: Some(one.address),
        status: status(one.standing),
        since: one.unchanged_for,
        weight: Some(one.weight.into()),
        roles: match one.rank {
            Rank::Main => Roles {
                active: 1,
                backup: 0,
            },
            Rank::Backup => Roles {
                active: 0,
                backup: 1,
            },
        },
        sessions: Level {
            now: one.sessions.into(),
            max: one.sessions_high.into(),
            limit: one.sessions_max.map(u64::from),
        },
        checks: Some(checks(one)),
        ..row
    }
}

/// What sessions at a server show.
fn carried(
    listen: &ListenSnapshot,
    one: &ServerSnapshot,
    proxy: &str,
    past: &mut Subject,
    now: Instant,
) -> Row {
    Row {
        queue: Some(Level::default()),
        session_flow: past.sessions(now, one.sessions_total),
        bytes_in: one.bytes_in,
        bytes_out: one.bytes_out,
        errors: Errors {
            connect: one.connect_errors,
            retries: one.retries,
            redispatches: one.redispatches,
            ..Errors::default()
        },
        idle: past.idle(now),
        connects: one.sessions_total,
        ..blank(listen, proxy, Kind::Server)
    }
}

/// How a server stands, in a word that HAProxy has.
pub(crate) fn status(standing: Standing) -> Status {
    match standing {
        Standing::Unchecked => Status::Unchecked,
        Standing::Unknown | Standing::Up => Status::Up,
        Standing::Down => Status::Down,
        Standing::Drain => Status::Drain,
        Standing::Maintenance => Status::Maintenance,
    }
}

fn checks(one: &ServerSnapshot) -> Checks {
    let last = match (&one.check, one.standing) {
        (Some(check), _) => {
            let status = check
                .status
                .map_or(String::new(), |code| format!("/{code}"));
            let took = check.took.as_millis();
            let failure = check.failure.as_deref();
            let failure = failure.map_or(String::new(), |failure| format!(": {failure}"));
            format!("{}{status} in {took}ms{failure}", check.code)
        }
        (None, Standing::Unchecked) => "not checked".to_owned(),
        (None, _) => "none yet".to_owned(),
    };
    Checks {
        downs: one.falls,
        downtime: one.downtime,
        last,
        verdict: one.check.as_ref().map(|check| Verdict {
            word: check.code,
            code: check.status,
            took: check.took,
        }),
    }
}
