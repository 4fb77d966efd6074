//! The page: HTML made here, so that it can be read without a script; the script only keeps it
//! fresh, sorts and filters.

use std::fmt::Write as _;
use std::time::Duration;

use super::rows::{Kind, Own, Row, Snapshot, Status};

/// How often a browser without a script fetches the page anew, in seconds.
const REFRESH: u64 = 5;

/// What stands behind `/stats;`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) refresh: Refresh,
    pub(crate) servers: Servers,
}

/// Whether the page renews itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Refresh {
    #[default]
    Yes,
    /// `;norefresh`.
    No,
}

/// Which servers are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Servers {
    #[default]
    All,
    /// `;up`: without those that are down.
    Up,
}

impl View {
    /// Whether a row is shown.
    pub(crate) fn shows(self, row: &Row) -> bool {
        match self.servers {
            Servers::All => true,
            Servers::Up => {
                row.kind != Kind::Server || matches!(row.status, Status::Up | Status::Unchecked)
            }
        }
    }

    /// The page's own path with another choice of servers.
    fn path(self, servers: Servers) -> &'static str {
        match (servers, self.refresh) {
            (Servers::All, Refresh::Yes) => "/stats",
            (Servers::All, Refresh::No) => "/stats;norefresh",
            (Servers::Up, Refresh::Yes) => "/stats;up",
            (Servers::Up, Refresh::No) => "/stats;up;norefresh",
        }
    }
}

/// One value: what is read, and by what it is sorted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) order: f64,
}

/// A column.
struct Column {
    title: &'static str,
    help: &'static str,
}

/// Columns under one heading.
struct Group {
    title: &'static str,
    columns: &'static [Column],
}

const fn column(title: &'static str, help: &'static str) -> Column {
    Column { title, help }
}

const FRONTEND_GROUPS: &[Group] = &[
    Group {
        title: "",
        columns: &[
            column("Frontend", "where clients come in"),
            column("Address", "where it listens"),
            column("Status", "whether it listens, and since when"),
        ],
    },
    Group {
        title: "Connections",
        columns: &[
            column("Cur", "open now"),
            column("Max", "open at most at a time"),
            column("Limit", "more wait in the kernel's queue"),
            column("Total", "accepted so far"),
            column("Rate", "accepted in the last second"),
            column("Max/s", "accepted at most in a second"),
        ],
    },
    Group {
        title: "Requests",
        columns: &[
            column("Rate", "answered in the last second"),
            column("Max/s", "answered at most in a second"),
            column("Total", "answered so far"),
        ],
    },
    Group {
        title: "Bytes",
        columns: &[
            column("In", "of bodies of requests"),
            column("Out", "of bodies of answers"),
        ],
    },
    Group {
        title: "Refused",
        columns: &[
            column(
                "Denied",
                "kept out or ended by a limit; /metrics tells which",
            ),
            column("Errors", "requests that were wrong"),
        ],
    },
    Group {
        title: "Answers",
        columns: &[
            column("2xx", ""),
            column("3xx", ""),
            column("4xx", ""),
            column("5xx", ""),
            column("Other", "1xx, and clients that went away before"),
        ],
    },
];

const SERVER_GROUPS: &[Group] = &[
    Group {
        title: "",
        columns: &[
            column("Service / instance", "and listeners with their servers"),
            column("Status", "whether it is asked, and since when"),
        ],
    },
    Group {
        title: "Queue",
        columns: &[
            column("Cur", "requests that wait for an instance"),
            column("Max", "the most so far"),
        ],
    },
    Group {
        title: "Requests",
        columns: &[
            column("Rate", "in the last second"),
            column("Max/s", "at most in a second"),
            column("In flight", "now; of a listener sessions"),
            column("Max", "in flight at most at a time"),
            column("Total", "so far; of an instance each try"),
            column("Last", "since the last one"),
        ],
    },
    Group {
        title: "Bytes",
        columns: &[
            column("In", "of bodies of requests"),
            column("Out", "of bodies of answers"),
        ],
    },
    Group {
        title: "Errors",
        columns: &[
            column("Conn", "connections that did not come about"),
            column(
                "Resp",
                "answers that did not come, broke off, or were 500 and more",
            ),
            column("5xx", "answers of 500 and more that clients got"),
        ],
    },
    Group {
        title: "Warnings",
        columns: &[
            column("Retr", "tries after the first"),
            column("Redis", "requests that went to another instance"),
            column("Ejct", "how often a worker took it out for its failures"),
        ],
    },
    Group {
        title: "Server",
        columns: &[
            column("Last check", "what the probes and checks say"),
            column("Wght", "its weight"),
            column("Act", "instances that are asked"),
            column("Bck", "instances in reserve"),
            column("Dwn", "how often it went down"),
            column("Dwntme", "for how long in all"),
        ],
    },
    Group {
        title: "Time, last 30 s",
        columns: &[
            column(
                "Head p50",
                "from a request's first byte to the answer's head",
            ),
            column("p50", "from a request's first byte to the answer's end"),
            column("p90", ""),
            column("p99", ""),
        ],
    },
];

/// The cells of a row, in the order of its table's columns.
pub(crate) fn cells(row: &Row) -> Vec<Cell> {
    match row.kind {
        Kind::Frontend => frontend_cells(row),
        Kind::Backend | Kind::Server => server_cells(row),
    }
}

fn frontend_cells(row: &Row) -> Vec<Cell> {
    let requests = row.requests.unwrap_or_default();
    let mut cells = vec![
        words(&row.proxy),
        words(
            &row.address
                .map_or(String::new(), |address| address.to_string()),
        ),
        status(row),
    ];
    cells.extend([row.sessions.now, row.sessions.max].map(number));
    cells.push(row.sessions.limit.map_or_else(|| words(""), number));
    let flow = row.session_flow;
    cells.extend([flow.total, flow.rate, flow.rate_max].map(number));
    cells.extend([requests.rate, requests.rate_max, requests.total].map(number));
    cells.extend([row.bytes_in, row.bytes_out].map(bytes));
    cells.extend([row.errors.denied, row.errors.request].map(number));
    cells.extend([2, 3, 4, 5].map(|class: usize| number(row.responses[class])));
    cells.push(number(row.responses[0] + row.responses[1]));
    cells
}

fn server_cells(row: &Row) -> Vec<Cell> {
    let name = match row.kind {
        Kind::Server => &row.name,
        Kind::Frontend | Kind::Backend => &row.proxy,
    };
    let (queue, flow, errors) = (row.queue.unwrap_or_default(), row.session_flow, row.errors);
    let (checks, times) = (
        row.checks.clone().unwrap_or_default(),
        row.times.unwrap_or_default(),
    );
    let mut cells = vec![words(name), status(row)];
    cells.extend([queue.now, queue.max].map(number));
    cells.extend(
        [
            flow.rate,
            flow.rate_max,
            row.sessions.now,
            row.sessions.max,
            flow.total,
        ]
        .map(number),
    );
    cells.push(row.idle.map_or_else(|| words(""), span));
    cells.extend([row.bytes_in, row.bytes_out].map(bytes));
    cells.extend([errors.connect, errors.response, row.responses[5]].map(number));
    cells.extend([errors.retries, errors.redispatches, errors.ejections].map(number));
    cells.push(words(&checks.last));
    cells.push(row.weight.map_or_else(|| words(""), number));
    cells.extend([row.roles.active, row.roles.backup, checks.downs].map(number));
    cells.push(span(checks.downtime));
    let total = times.total;
    cells.extend([times.first_byte.p50, total.p50, total.p90, total.p99].map(latency));
    cells
}

fn words(text: &str) -> Cell {
    Cell {
        text: text.to_owned(),
        order: f64::NAN,
    }
}

fn status(row: &Row) -> Cell {
    Cell {
        text: format!("{} {}", row.status.word(), span(row.since).text),
        order: f64::NAN,
    }
}

/// As exact as a table can be read: 9999, 12.3k, 4.5M.
fn number(value: u64) -> Cell {
    scaled(value, 10_000, 1000.0, ["", "k", "M", "G", "T"])
}

fn bytes(value: u64) -> Cell {
    scaled(value, 1024, 1024.0, ["", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(value: u64, plain: u64, step: f64, units: [&str; 5]) -> Cell {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let order = value as f64;
    let mut text = value.to_string();
    if value >= plain {
        let mut left = order;
        for unit in units {
            text = match left {
                left if left < 99.95 => format!("{left:.1}{unit}"),
                left => format!("{left:.0}{unit}"),
            };
            if left < step {
                break;
            }
            left /= step;
        }
    }
    Cell { text, order }
}

/// The two greatest units.
fn span(time: Duration) -> Cell {
    let seconds = time.as_secs();
    let text = match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    };
    Cell {
        text,
        order: time.as_secs_f64(),
    }
}

fn latency(time: Option<Duration>) -> Cell {
    let Some(time) = time else {
        return words("");
    };
    let ms = time.as_secs_f64() * 1000.0;
    let text = match ms {
        ms if ms < 0.9995 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 9999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    };
    Cell { text, order: ms }
}

/// The class by which a row is coloured.
pub(crate) fn class(row: &Row) -> &'static str {
    match (row.kind, row.status) {
        (Kind::Frontend, Status::Open) => "frontend up",
        (Kind::Backend, Status::Up) => "backend up",
        (Kind::Server, Status::Up | Status::Unchecked | Status::Open) => "server up",
        (Kind::Server, Status::Drain) => "server drain",
        (Kind::Server, Status::Maintenance) => "server maint",
        (Kind::Frontend, _) => "frontend down",
        (Kind::Backend, _) => "backend down",
        (Kind::Server, _) => "server down",
    }
}

/// The lines about the gateway itself: what, and its value.
pub(crate) fn own(own: &Own) -> [(&'static str, String); 4] {
    [
        ("uptime", span(own.uptime).text),
        ("workers", own.workers.to_string()),
        (
            "routes",
            own.generation
                .clone()
                .unwrap_or_else(|| "none yet".to_owned()),
        ),
        ("log lines dropped", own.log_dropped.to_string()),
    ]
}

/// The begin of a page, up to what only this one has in its head.
pub(crate) fn push_head(html: &mut String, title: &str) {
    html.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\n");
    push(
        html,
        format_args!(
            "<title>{title}</title>\n<link rel=\"icon\" href=\"/stats/icon.svg\"><link rel=\"stylesheet\" href=\"/stats/style.css\">\n"
        ),
    );
}

/// The whole page.
pub(crate) fn page(snapshot: &Snapshot, view: View) -> String {
    let mut html = String::with_capacity(16 * 1024);
    push_head(&mut html, "Mainstay: statistics");
    if view.refresh == Refresh::Yes {
        html.push_str("<script type=\"module\" src=\"/stats/live.js\"></script>\n");
        let path = view.path(view.servers);
        push(
            &mut html,
            format_args!(
                "<noscript><meta http-equiv=\"refresh\" content=\"{REFRESH};url={path}\"></noscript>\n"
            ),
        );
    } else {
        html.push_str("<script type=\"module\" src=\"/stats/still.js\"></script>\n");
    }
    html.push_str("</head><body>\n<header><h1>Mainstay gateway</h1><dl id=\"own\">");
    for (name, value) in own(&snapshot.own) {
        push(
            &mut html,
            format_args!("<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value)),
        );
    }
    html.push_str("</dl></header>\n");
    push_tools(&mut html, view);
    if !snapshot.listeners.is_empty() || !snapshot.services.is_empty() {
        html.push_str("<nav><a href=\"/stats/change\">Drain, maintenance and weight</a></nav>\n");
    }
    push_table(&mut html, "frontends", FRONTEND_GROUPS, snapshot, view);
    push_table(&mut html, "services", SERVER_GROUPS, snapshot, view);
    html.push_str("<footer>");
    for (class, text) in [
        ("up", "up"),
        ("down", "down"),
        ("drain", "draining"),
        ("maint", "in maintenance"),
    ] {
        push(
            &mut html,
            format_args!("<span class=\"key {class}\">{text}</span>"),
        );
    }
    html.push_str("</footer>\n</body></html>\n");
    html
}

fn push_tools(html: &mut String, view: View) {
    html.push_str("<nav><label id=\"filter\" hidden>Filter <input type=\"search\" placeholder=\"service, instance, status\"></label>");
    push(
        html,
        format_args!("<a href=\"{}\">Refresh now</a>", view.path(view.servers)),
    );
    match view.servers {
        Servers::All => push(
            html,
            format_args!(
                "<a href=\"{}\">Hide those that are down</a>",
                view.path(Servers::Up)
            ),
        ),
        Servers::Up => push(
            html,
            format_args!("<a href=\"{}\">Show all</a>", view.path(Servers::All)),
        ),
    }
    html.push_str("<a href=\"/stats;csv\">CSV</a><a href=\"/stats;json\">JSON</a><a href=\"/metrics\">Metrics</a>");
    html.push_str("<output id=\"state\">as of this moment</output></nav>\n");
}

fn push_table(html: &mut String, id: &str, groups: &[Group], snapshot: &Snapshot, view: View) {
    let is_here = |row: &&Row| (row.kind == Kind::Frontend) == (id == "frontends");
    push(
        html,
        format_args!("<div class=\"scroll\"><table id=\"{id}\"><thead><tr>"),
    );
    for Group { title, columns } in groups {
        push(
            html,
            format_args!(
                "<th colspan=\"{}\" scope=\"colgroup\">{title}</th>",
                columns.len()
            ),
        );
    }
    html.push_str("</tr><tr>");
    for group in groups {
        for (at, Column { title, help }) in group.columns.iter().enumerate() {
            let first = if at == 0 { " class=\"first\"" } else { "" };
            push(
                html,
                format_args!(
                    "<th scope=\"col\"{first} title=\"{}\">{title}</th>",
                    escaped(help)
                ),
            );
        }
    }
    html.push_str("</tr></thead>");
    let firsts = firsts(groups);
    let mut open = false;
    for row in snapshot
        .rows
        .iter()
        .filter(is_here)
        .filter(|row| view.shows(row))
    {
        if row.kind != Kind::Server {
            html.push_str(if open { "</tbody><tbody>" } else { "<tbody>" });
            open = true;
        }
        push_row(html, row, &firsts);
    }
    if !open {
        let count = firsts.len();
        push(
            html,
            format_args!("<tbody class=\"none\"><tr><td colspan=\"{count}\">none yet</td></tr>"),
        );
    }
    html.push_str("</tbody></table></div>\n");
}

/// Whether a column is the first of its group.
fn firsts(groups: &[Group]) -> Vec<bool> {
    let columns = groups
        .iter()
        .flat_map(|group| (0..group.columns.len()).map(|at| at == 0));
    columns.collect()
}

fn push_row(html: &mut String, row: &Row, firsts: &[bool]) {
    push(
        html,
        format_args!(
            "<tr id=\"{}\" class=\"{}\">",
            escaped(&row.id()),
            class(row)
        ),
    );
    for (at, cell) in cells(row).into_iter().enumerate() {
        let first = if firsts.get(at) == Some(&true) {
            " class=\"first\""
        } else {
            ""
        };
        let order = if cell.order.is_nan() {
            String::new()
        } else {
            format!(" data-order=\"{}\"", cell.order)
        };
        let tag = if at == 0 { "th" } else { "td" };
        push(
            html,
            format_args!("<{tag}{first}{order}>{}</{tag}>", escaped(&cell.text)),
        );
    }
    html.push_str("</tr>");
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("writing to memory cannot fail");
}

/// Text that cannot be taken for markup, also within a quoted attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_exact_as_a_table_can_be_read() {
        let shown = |value| number(value).text;
        assert_eq!(
            [0, 9999, 10_000, 99_949, 123_456, 7_500_000, 2_000_000_000].map(shown),
            ["0", "9999", "10.0k", "99.9k", "123k", "7.5M", "2.0G"]
        );
        let shown = |value| bytes(value).text;
        assert_eq!(
            [0, 1023, 1024, 1536 * 1024, 300 << 30].map(shown),
            ["0", "1023", "1.0 KiB", "1.5 MiB", "300 GiB"]
        );
        let shown = |us| latency(Some(Duration::from_micros(us))).text;
        assert_eq!(
            [40, 1000, 12_340, 450_000, 12_000_000].map(shown),
            ["40 \u{b5}s", "1.0 ms", "12.3 ms", "450 ms", "12.0 s"]
        );
        let shown = |seconds| span(Duration::from_secs(seconds)).text;
        assert_eq!(
            [5, 65, 3725, 90_000].map(shown),
            ["5s", "1m05s", "1h02m", "1d01h"]
        );
    }

    #[test]
    fn what_a_name_holds_is_never_taken_for_markup() {
        let name = "<script>\"'&";
        let row = Row {
            proxy: name.into(),
            name: name.into(),
            ..crate::stats::table::tests::foreign_server()
        };
        let snapshot = Snapshot {
            rows: vec![row],
            ..Snapshot::default()
        };
        let html = page(&snapshot, View::default());
        assert!(
            !html.contains("<script>\"") && html.contains("&lt;script&gt;&quot;&#39;&amp;"),
            "{html}"
        );
    }

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        let row = crate::stats::table::tests::foreign_server();
        assert_eq!(cells(&row).len(), firsts(SERVER_GROUPS).len());
        let row = Row {
            kind: Kind::Frontend,
            ..row
        };
        assert_eq!(cells(&row).len(), firsts(FRONTEND_GROUPS).len());
    }
}
