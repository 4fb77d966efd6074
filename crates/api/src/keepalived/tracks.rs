//! Scripts and processes that are tracked: defined once, named by routers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_model::vip::{TRACK_EVERY, TRACK_TIMEOUT, TrackSpec, Tracked};

use super::reasons::{self, Block};
use super::tree::Statement;
use super::{Report, command};

/// Runs in a row of which a node file can speak.
const COUNT_MAX: u32 = 100;

/// What is defined, by name.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    scripts: BTreeMap<String, Option<TrackSpec>>,
    processes: BTreeMap<String, Option<TrackSpec>>,
}

impl Tracks {
    /// Takes in a definition.
    pub(super) fn define(&mut self, statement: &Statement, report: &mut Report) {
        let place = &statement.place;
        let [name] = statement.values() else {
            let message = format!("`{}` has one name", statement.key());
            let help = format!("write `{} NAME {{`", statement.key());
            report.wrong(place, message, help);
            return;
        };
        let (defined, spec) = if statement.key() == "vrrp_script" {
            (&mut self.scripts, script(statement, report))
        } else {
            (&mut self.processes, process(statement, report))
        };
        if defined.insert(name.clone(), spec).is_some() {
            let why = "the name stands twice; the last one counts";
            report.leave(place, statement.words.join(" "), why);
        }
    }

    /// What a router names in `track_script` or `track_process`.
    pub(super) fn named(
        &self,
        block: &Statement,
        within: &str,
        report: &mut Report,
    ) -> Vec<TrackSpec> {
        let defined = if block.key() == "track_script" {
            &self.scripts
        } else {
            &self.processes
        };
        let mut found = Vec::new();
        for statement in block.inner() {
            let (place, name) = (&statement.place, statement.key());
            let key = format!("{within} {} {}", block.key(), statement.words.join(" "));
            match defined.get(name) {
                None => {
                    let message = format!("`{name}` is not defined");
                    let help = "define it in this file or in one that it includes";
                    report.wrong(place, message, help);
                }
                // Why was told where it is defined.
                Some(None) => report.leave(place, key, "it was not taken over"),
                Some(Some(_)) if statement.values().iter().any(|word| word == "reverse") => {
                    let why = "nothing is tracked for being dead; let the program say the opposite";
                    report.leave(place, key, why);
                }
                Some(Some(spec)) => {
                    if statement
                        .values()
                        .iter()
                        .any(|word| word != "weight" && word != "0")
                    {
                        report.leave(place, key, reasons::of_weight());
                    }
                    found.push(spec.clone());
                }
            }
        }
        found
    }
}

fn script(statement: &Statement, report: &mut Report) -> Option<TrackSpec> {
    let within = statement.words.join(" ");
    let mut spec = TrackSpec {
        every: Duration::from_secs(1),
        fall: NonZeroU32::MIN,
        rise: NonZeroU32::MIN,
        ..TrackSpec::of(Tracked::Exec(Vec::new()))
    };
    let mut timeout = None;
    for one in statement.inner() {
        match one.key() {
            "script" => {
                let Some((words, more)) = command::read(&one.raw) else {
                    let help = "write `script \"/usr/local/bin/check ARGUMENT\"`";
                    report.wrong(&one.place, "the command cannot be read", help);
                    return None;
                };
                if !more.is_empty() {
                    let why = "keepalived runs what stands in quotes, and leaves the rest of the line out, too";
                    report.leave(
                        &one.place,
                        format!("{within} script: {}", more.join(" ")),
                        why,
                    );
                }
                spec.what = port(&words).unwrap_or(Tracked::Exec(words));
            }
            "interval" => spec.every = seconds(one, report)?,
            "timeout" => timeout = Some(seconds(one, report)?),
            "fall" => spec.fall = count(one, &within, report)?,
            "rise" => spec.rise = count(one, &within, report)?,
            _ => leave(one, &within, report),
        }
    }
    if spec.what == Tracked::Exec(Vec::new()) {
        let help = "write `script \"/usr/local/bin/check\"` in it";
        report.wrong(&statement.place, format!("`{within}` has no command"), help);
        return None;
    }
    spec.timeout = timeout.unwrap_or(spec.every);
    Some(spec)
}

/// How a port is looked at by a program that every machine has; what `export` writes.
pub(super) fn of_port(address: &std::net::SocketAddr) -> Vec<String> {
    let (host, port) = (address.ip(), address.port());
    let connect = format!("exec 3<>/dev/tcp/{host}/{port}");
    vec!["/bin/bash".to_owned(), "-c".to_owned(), connect]
}

fn port(words: &[String]) -> Option<Tracked> {
    let [shell, flag, connect] = words else {
        return None;
    };
    let place = connect.strip_prefix("exec 3<>/dev/tcp/")?;
    let (host, port) = place.rsplit_once('/')?;
    let address = std::net::SocketAddr::new(host.parse().ok()?, port.parse().ok()?);
    let ours = shell == "/bin/bash" && flag == "-c" && !address.ip().is_unspecified();
    ours.then_some(Tracked::Tcp(address))
}

fn process(statement: &Statement, report: &mut Report) -> Option<TrackSpec> {
    let within = statement.words.join(" ");
    let mut spec = None;
    for one in statement.inner() {
        if one.key() != "process" {
            leave(one, &within, report);
            continue;
        }
        let Some((words, more)) = command::read(&one.raw) else {
            let help = "write `process haproxy`";
            report.wrong(&one.place, "the process cannot be read", help);
            return None;
        };
        let name = words.first().map_or("", String::as_str);
        let base = name.rsplit('/').next().unwrap_or(name);
        if base.is_empty() {
            let help = "write `process haproxy`";
            report.wrong(&one.place, "the process has no name", help);
            return None;
        }
        if base != name || words.len() > 1 || !more.is_empty() {
            let why = format!("a process is found by its name alone, `{base}`");
            report.leave(&one.place, format!("{within} {}", one.words.join(" ")), why);
        }
        spec = Some(TrackSpec {
            every: TRACK_EVERY,
            timeout: TRACK_TIMEOUT,
            ..TrackSpec::of(Tracked::Process(base.to_owned()))
        });
    }
    if spec.is_none() {
        let help = "write `process haproxy` in it";
        report.wrong(&statement.place, format!("`{within}` has no process"), help);
    }
    spec
}

fn leave(statement: &Statement, within: &str, report: &mut Report) {
    let (place, key) = (&statement.place, statement.key());
    let why = match (key, statement.values()) {
        ("weight", [zero]) if zero == "0" => return,
        ("weight", _) => reasons::of_weight(),
        // Which is what programs of `mainstay run` are, whose floating addresses need root.
        ("user", [root]) if root == "root" => return,
        _ => reasons::of(Block::Track, key),
    };
    report.leave(
        place,
        format!("{within} {}", statement.words.join(" ")),
        why,
    );
}

/// Whole seconds, at least one, as keepalived reads them.
fn seconds(statement: &Statement, report: &mut Report) -> Option<Duration> {
    let value = statement.values().first().map(|text| text.parse::<u32>());
    let Some(Ok(seconds)) = value else {
        let message = format!("`{}` is a number of seconds", statement.key());
        let help = format!("write `{} 1`", statement.key());
        report.wrong(&statement.place, message, help);
        return None;
    };
    Some(Duration::from_secs(seconds.max(1).into()))
}

fn count(statement: &Statement, within: &str, report: &mut Report) -> Option<NonZeroU32> {
    let value = statement.values().first().map(|text| text.parse::<u32>());
    let Some(Ok(count)) = value else {
        let message = format!("`{}` is a number of runs", statement.key());
        let help = format!("write `{} 2`", statement.key());
        report.wrong(&statement.place, message, help);
        return None;
    };
    if count > COUNT_MAX {
        let key = format!("{within} {}", statement.words.join(" "));
        report.leave(
            &statement.place,
            key,
            format!("it is {COUNT_MAX}, the most"),
        );
    }
    Some(NonZeroU32::new(count.min(COUNT_MAX)).unwrap_or(NonZeroU32::MIN))
}
