//! The rows as other programs read them: HAProxy's table of statistics, as CSV and as JSON.
//!
//! The columns are those of HAProxy 2.6 (its management guide, section 9.1), in its order, so that
//! whatever reads HAProxy's page reads ours. What does not exist here is empty, as HAProxy leaves
//! what a row does not have.

use std::borrow::Cow;
use std::time::Duration;

use super::rows::{Kind, Row, Snapshot};

/// HAProxy's columns up to those of its modules, which it sets apart by one named `-`.
#[rustfmt::skip]
const COLUMNS: [&str; 103] = [
    "pxname", "svname", "qcur", "qmax", "scur", "smax", "slim", "stot", "bin", "bout", "dreq",
    "dresp", "ereq", "econ", "eresp", "wretr", "wredis", "status", "weight", "act", "bck",
    "chkfail", "chkdown", "lastchg", "downtime", "qlimit", "pid", "iid", "sid", "throttle",
    "lbtot", "tracked", "type", "rate", "rate_lim", "rate_max", "check_status", "check_code",
    "check_duration", "hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other",
    "hanafail", "req_rate", "req_rate_max", "req_tot", "cli_abrt", "srv_abrt", "comp_in",
    "comp_out", "comp_byp", "comp_rsp", "lastsess", "last_chk", "last_agt", "qtime", "ctime",
    "rtime", "ttime", "agent_status", "agent_code", "agent_duration", "check_desc", "agent_desc",
    "check_rise", "check_fall", "check_health", "agent_rise", "agent_fall", "agent_health", "addr",
    "cookie", "mode", "algo", "conn_rate", "conn_rate_max", "conn_tot", "intercepted", "dcon",
    "dses", "wrew", "connect", "reuse", "cache_lookups", "cache_hits", "srv_icur", "src_ilim",
    "qtime_max", "ctime_max", "rtime_max", "ttime_max", "eint", "idle_conn_cur", "safe_conn_cur",
    "used_conn_cur", "need_conn_est", "uweight", "agg_server_status", "agg_server_check_status",
    "agg_check_status",
];

/// The name by which HAProxy separates the columns of its modules, of which we have none.
const SEPARATOR: &str = "-";

/// A row with its numbers: HAProxy counts proxies from 1, and servers within each.
struct Numbered<'a> {
    row: &'a Row,
    proxy: usize,
    server: usize,
}

fn numbered(snapshot: &Snapshot) -> impl Iterator<Item = Numbered<'_>> {
    let mut proxies: Vec<&str> = Vec::new();
    let mut server = 0;
    snapshot.rows.iter().map(move |row| {
        let known = proxies.iter().position(|proxy| *proxy == row.proxy);
        let proxy = known.unwrap_or_else(|| {
            proxies.push(&row.proxy);
            proxies.len() - 1
        });
        server = match row.kind {
            Kind::Frontend | Kind::Backend => 0,
            Kind::Server => server + 1,
        };
        Numbered {
            row,
            proxy: proxy + 1,
            server,
        }
    })
}

/// What `/stats;csv` answers.
pub(crate) fn csv(snapshot: &Snapshot) -> String {
    let mut text = String::from("# ");
    for column in COLUMNS.iter().chain([&SEPARATOR]) {
        text.push_str(column);
        text.push(',');
    }
    text.push('\n');
    for numbered in numbered(snapshot) {
        for column in COLUMNS {
            text.push_str(&quoted(&numbered.value(column)));
            text.push(',');
        }
        text.push_str(SEPARATOR);
        text.push_str(",\n");
    }
    text
}

/// RFC 4180, 2.6 and 2.7.
fn quoted(value: &str) -> Cow<'_, str> {
    if value.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", value.replace('"', "\"\"")).into();
    }
    value.into()
}

/// What `/stats;json` answers: an object per row, with HAProxy's names for what the row has.
pub(crate) fn json(snapshot: &Snapshot) -> String {
    let rows = numbered(snapshot).map(|numbered| {
        let pairs = COLUMNS.iter().filter_map(|column| {
            let value = numbered.value(column);
            let value = match value.parse::<u64>() {
                _ if value.is_empty() => return None,
                Ok(number) => number.into(),
                Err(_) => serde_json::Value::String(value),
            };
            Some(((*column).to_owned(), value))
        });
        serde_json::Value::Object(pairs.collect())
    });
    let own = &snapshot.own;
    let answer = serde_json::json!({
        "mainstay": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": own.uptime.as_secs(),
        "workers": own.workers,
        "generation": own.generation,
        "log_dropped_lines": own.log_dropped,
        "rows": rows.collect::<Vec<_>>(),
    });
    format!("{answer}\n")
}

impl Numbered<'_> {
    /// The value of one of [`COLUMNS`]; empty if the row does not have it.
    fn value(&self, column: &str) -> String {
        let row = self.row;
        let some = |value: u64| value.to_string();
        match column {
            "pxname" => row.proxy.clone(),
            "svname" => row.name.clone(),
            "pid" => some(1),
            "iid" => self.proxy.to_string(),
            "sid" => self.server.to_string(),
            "type" => some(match row.kind {
                Kind::Frontend => 0,
                Kind::Backend => 1,
                Kind::Server => 2,
            }),
            "scur" => some(row.sessions.now),
            "smax" => some(row.sessions.max),
            "slim" => optional(row.sessions.limit),
            "stot" => some(row.session_flow.total),
            "rate" => some(row.session_flow.rate),
            "rate_max" => some(row.session_flow.rate_max),
            "bin" => some(row.bytes_in),
            "bout" => some(row.bytes_out),
            "status" => row.status.word().to_owned(),
            "mode" => row.mode.word().to_owned(),
            "addr" => row
                .address
                .map_or(String::new(), |address| address.to_string()),
            "hrsp_other" => some(row.responses[0]),
            "hrsp_1xx" => some(row.responses[1]),
            "hrsp_2xx" => some(row.responses[2]),
            "hrsp_3xx" => some(row.responses[3]),
            "hrsp_4xx" => some(row.responses[4]),
            "hrsp_5xx" => some(row.responses[5]),
            "lastsess" => match (row.kind, row.idle) {
                (Kind::Frontend, _) => String::new(),
                (Kind::Backend | Kind::Server, None) => "-1".to_owned(),
                (Kind::Backend | Kind::Server, Some(idle)) => some(idle.as_secs()),
            },
            _ => match row.kind {
                Kind::Frontend => self.of_frontend(column),
                Kind::Backend | Kind::Server => self.of_servers(column),
            },
        }
    }

    /// What only frontends have.
    fn of_frontend(&self, column: &str) -> String {
        let row = self.row;
        let requests = row.requests.unwrap_or_default();
        let value = match column {
            "req_rate" => requests.rate,
            "req_rate_max" => requests.rate_max,
            "req_tot" => requests.total,
            "conn_rate" => row.session_flow.rate,
            "conn_rate_max" => row.session_flow.rate_max,
            "conn_tot" => row.session_flow.total,
            "dcon" | "dses" | "dresp" | "rate_lim" | "intercepted" | "wrew" | "eint"
            | "comp_in" | "comp_out" | "comp_byp" | "comp_rsp" => 0,
            "dreq" => row.errors.denied,
            "ereq" => row.errors.request,
            _ => return String::new(),
        };
        value.to_string()
    }

    /// What backends and servers have.
    fn of_servers(&self, column: &str) -> String {
        let row = self.row;
        let (errors, times) = (row.errors, row.times.unwrap_or_default());
        let queue = row.queue.unwrap_or_default();
        let value = match column {
            "qcur" => queue.now,
            "qmax" => queue.max,
            "qlimit" => return optional(queue.limit),
            "dresp" | "wrew" | "eint" => 0,
            "econ" => errors.connect,
            "eresp" => errors.response,
            "wretr" => errors.retries,
            "wredis" => errors.redispatches,
            "cli_abrt" => errors.client_aborts,
            "srv_abrt" => errors.server_aborts,
            "weight" | "uweight" => return optional(row.weight),
            "act" => row.roles.active,
            "bck" => row.roles.backup,
            "lastchg" => row.since.as_secs(),
            "lbtot" => row.session_flow.total,
            "connect" => row.connects,
            "reuse" => row.session_flow.total.saturating_sub(row.connects),
            "qtime" => milliseconds(times.queue.mean),
            "ctime" => milliseconds(times.connect.mean),
            "rtime" => milliseconds(times.first_byte.mean),
            "ttime" => milliseconds(times.total.mean),
            "qtime_max" => milliseconds(times.queue.longest),
            "ctime_max" => milliseconds(times.connect.longest),
            "rtime_max" => milliseconds(times.first_byte.longest),
            "ttime_max" => milliseconds(times.total.longest),
            _ => return self.of_checks(column),
        };
        value.to_string()
    }

    fn of_checks(&self, column: &str) -> String {
        let Some(checks) = &self.row.checks else {
            return String::new();
        };
        match (column, self.row.kind) {
            ("chkdown", _) => checks.downs.to_string(),
            ("downtime", _) => checks.downtime.as_secs().to_string(),
            ("last_chk", Kind::Server) => checks.last.clone(),
            ("check_status", Kind::Server) => checks
                .verdict
                .map_or(String::new(), |verdict| verdict.word.to_owned()),
            ("check_code", Kind::Server) => {
                optional(checks.verdict.and_then(|one| one.code).map(u64::from))
            }
            ("check_duration", Kind::Server) => {
                optional(checks.verdict.map(|one| milliseconds(Some(one.took))))
            }
            ("req_tot", Kind::Backend) => self.row.session_flow.total.to_string(),
            ("dreq", Kind::Backend) => self.row.errors.denied.to_string(),
            _ => String::new(),
        }
    }
}

fn optional(value: Option<u64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn milliseconds(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::stats::rows::{Checks, Errors, Flow, Level, Mode, Roles, Status, Verdict};

    /// A server that Mainstay did not start, as a `[listen]` fills it in.
    pub(crate) fn foreign_server() -> Row {
        Row {
            kind: Kind::Server,
            proxy: "rabbitmq".into(),
            name: "10.0.0.1:5672".into(),
            mode: Mode::Tcp,
            address: Some(([10, 0, 0, 1], 5672).into()),
            status: Status::Maintenance,
            since: Duration::from_secs(61),
            weight: Some(10),
            roles: Roles {
                active: 0,
                backup: 1,
            },
            queue: Some(Level::default()),
            sessions: Level {
                now: 1,
                max: 4,
                limit: Some(100),
            },
            session_flow: Flow {
                total: 7,
                rate: 2,
                rate_max: 3,
            },
            requests: None,
            bytes_in: 5,
            bytes_out: 6,
            responses: [0; 6],
            errors: Errors {
                connect: 2,
                ..Errors::default()
            },
            checks: Some(Checks {
                downs: 1,
                downtime: Duration::from_secs(9),
                last: "refused, \"twice\"".into(),
                verdict: Some(Verdict {
                    word: "L7STS",
                    code: Some(500),
                    took: Duration::from_millis(12),
                }),
            }),
            times: None,
            idle: None,
            connects: 7,
        }
    }

    #[test]
    fn a_server_of_a_listen_is_a_line_whose_values_stand_under_their_names() {
        let snapshot = Snapshot {
            rows: vec![foreign_server()],
            ..Snapshot::default()
        };
        let text = csv(&snapshot);
        let (head, line) = text.split_once('\n').unwrap();
        // The one value with commas, as RFC 4180 has it.
        assert!(line.contains(",\"refused, \"\"twice\"\"\","), "{line}");
        let line = line.replace("\"refused, \"\"twice\"\"\"", "refused");
        let names = head.trim_start_matches("# ").split(',');
        let row: Vec<(&str, &str)> = names.zip(line.split(',')).collect();
        for (name, value) in [
            ("pxname", "rabbitmq"),
            ("svname", "10.0.0.1:5672"),
            ("status", "MAINT"),
            ("mode", "tcp"),
            ("addr", "10.0.0.1:5672"),
            ("slim", "100"),
            ("bck", "1"),
            ("econ", "2"),
            ("lastchg", "61"),
            ("downtime", "9"),
            ("last_chk", "refused"),
            ("check_status", "L7STS"),
            ("check_code", "500"),
            ("check_duration", "12"),
            ("type", "2"),
            ("weight", "10"),
            ("lastsess", "-1"),
            ("-", "-"),
        ] {
            assert!(row.contains(&(name, value)), "{name}: {row:?}");
        }
    }
}
