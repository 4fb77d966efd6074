//! `mainstay queue`: asks the broker's process, over its own socket: a node may have a broker and no control centre.

mod policy;

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mainstay_broker::view::{Answer, Ask, Deed, Message, Queue, SOCKET, Status};

use super::{or_dash, print_table, table};
use crate::arguments::{OfVhost, Place, QueueDeed};
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How long an answer may take: many messages may be read from the disk for it.
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// The largest body of a message that the broker takes.
const BODY_LEN_MAX: u64 = 128 * 1024 * 1024;
/// The virtual host that a broker has at its first start, and that clients ask for by default.
const DEFAULT_VHOST: &str = "/";
/// The longest password that is read: the longest that a client can send.
const PASSWORD_LEN_MAX: u64 = 4096;

pub(crate) fn run(place: &Place, deed: QueueDeed) -> anyhow::Result<Outcome> {
    match deed {
        QueueDeed::Ls { vhost } => ls(place, vhost),
        QueueDeed::Status => status(place),
        QueueDeed::Metrics => metrics(place),
        QueueDeed::Peek { queue, count, of } => messages(place, of, Deed::Peek { queue, count }),
        QueueDeed::Consume { queue, count, of } => messages(place, of, Deed::Take { queue, count }),
        QueueDeed::Purge { queue, of } => done(place, of, Deed::Purge { queue }, "thrown away"),
        QueueDeed::Delete { queue, of } => {
            done(place, of, Deed::Delete { queue }, "deleted with the queue")
        }
        QueueDeed::Move {
            from,
            to,
            count,
            of,
        } => move_all(place, &of, &from, &to, count),
        QueueDeed::Declare {
            queue,
            arguments,
            of,
        } => {
            let arguments = of_queue(arguments.as_deref())?;
            done(place, of, Deed::Declare { queue, arguments }, "")
        }
        QueueDeed::Publish {
            queue,
            exchange,
            body,
            of,
        } => {
            let body = match body {
                Some(body) => body.into_bytes(),
                None => standard_input(BODY_LEN_MAX)?,
            };
            let deed = Deed::Publish {
                exchange,
                routing_key: queue,
                body: mainstay_broker::view::base64(&body),
            };
            done(place, of, deed, "published, and on disk")
        }
        QueueDeed::Policy { deed } => policy::run(place, deed),
        QueueDeed::Export => export(place),
        QueueDeed::Import { file } => import(place, &file),
        QueueDeed::Vhost { name } => simple(place, &Ask::AddVhost { name }),
        QueueDeed::RmVhost { name, default } => rm_vhost(place, name, default),
        QueueDeed::User { name } => set_user(place, name),
        QueueDeed::RmUser { name } => simple(place, &Ask::RemoveUser { name }),
        QueueDeed::Permit {
            user,
            configure,
            write,
            read,
            of,
        } => {
            let vhost = of.vhost;
            let ask = Ask::Permit {
                user,
                vhost,
                configure,
                write,
                read,
            };
            simple(place, &ask)
        }
        QueueDeed::Fsck => fsck(place),
    }
}

/// What a queue is declared with, as it was typed.
fn of_queue(arguments: Option<&str>) -> anyhow::Result<serde_json::Value> {
    serde_json::from_str(arguments.unwrap_or("{}")).context("`--arguments` is no JSON")
}

fn set_user(place: &Place, name: String) -> anyhow::Result<Outcome> {
    let password = password_of(&name)?;
    simple(place, &Ask::SetUser { name, password })
}

/// The password that standard input has, without the end of its line.
fn password_of(name: &str) -> anyhow::Result<String> {
    let password = standard_input(PASSWORD_LEN_MAX)?;
    let password = String::from_utf8(password).context("a password is text")?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        let message = format!("standard input has no password for `{name}`");
        let failure = Failure::new(Outcome::WrongInput, message);
        let remedy = format!("for instance `mainstay queue user {name} < FILE`");
        return Err(failure.remedy(remedy).into());
    }
    Ok(password.to_owned())
}

fn ls(place: &Place, vhost: Option<String>) -> anyhow::Result<Outcome> {
    let Answer::Queues { queues } = ask(&place.state, &Ask::Queues { vhost })? else {
        return unexpected();
    };
    if place.json {
        output::json(&queues)?;
        return Ok(Outcome::Holds);
    }
    let mut rows = table(&[
        "VHOST",
        "QUEUE",
        "READY",
        "BYTES",
        "UNACKED",
        "CONSUMERS",
        "IN/s",
        "OUT/s",
        "ACK/s",
        "EMPTY IN",
        "DURABLE",
        "POLICY",
    ]);
    for queue in queues {
        let Queue {
            vhost,
            name,
            durable,
            ready,
            ready_bytes,
            unacked,
            consumers,
            policy,
            published_per_second,
            delivered_per_second,
            acknowledged_per_second,
            seconds_to_empty,
        } = queue;
        rows.add_row([
            vhost,
            name,
            ready.to_string(),
            ready_bytes.to_string(),
            unacked.to_string(),
            consumers.to_string(),
            rate(published_per_second),
            rate(delivered_per_second),
            rate(acknowledged_per_second),
            when_empty(seconds_to_empty),
            if durable { "yes" } else { "no" }.to_owned(),
            or_dash(policy),
        ]);
    }
    print_table(&rows)?;
    Ok(Outcome::Holds)
}

/// Messages per second; a slow queue is told from one that stands.
fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// Nobody plans beyond a day by what went on for five seconds.
fn when_empty(seconds: Option<f64>) -> String {
    const DAY: f64 = 24.0 * 60.0 * 60.0;
    match seconds {
        None => "never".to_owned(),
        Some(seconds) if seconds >= DAY => "> 1d".to_owned(),
        Some(seconds) if seconds >= 120.0 => format!("{:.0}m", seconds / 60.0),
        Some(seconds) if seconds > 0.0 => format!("{:.0}s", seconds.max(1.0)),
        Some(_) => "-".to_owned(),
    }
}

fn metrics(place: &Place) -> anyhow::Result<Outcome> {
    let Answer::Metrics { text } = ask(&place.state, &Ask::Metrics)? else {
        return unexpected();
    };
    if place.json {
        output::json(&serde_json::json!({ "metrics": text }))?;
    } else {
        output::line(text.trim_end())?;
    }
    Ok(Outcome::Holds)
}

fn status(place: &Place) -> anyhow::Result<Outcome> {
    let Answer::Status(status) = ask(&place.state, &Ask::Status)? else {
        return unexpected();
    };
    if place.json {
        output::json(&status)?;
        return Ok(Outcome::Holds);
    }
    let Status {
        connections,
        connections_max,
        tls,
        alarm,
        memory,
        on_disk,
        live,
        counters,
    } = *status;
    output::line(format_args!(
        "connections  {connections}, of which {} with TLS; at most {connections_max}",
        tls.connections
    ))?;
    if let Some(problem) = &tls.problem {
        output::line(format_args!("certificate  {problem}"))?;
    }
    if let Some(last) = &tls.refused_last {
        output::line(format_args!(
            "TLS          {} handshakes failed, the last of {last}",
            tls.refused
        ))?;
    }
    output::line(format_args!(
        "publishers   {}",
        alarm.map_or_else(|| "go on".to_owned(), |why| format!("wait: {why}"))
    ))?;
    output::line(format_args!("memory       {} KiB", memory / 1024))?;
    output::line(format_args!(
        "log          {} KiB, of which {} KiB are needed",
        on_disk / 1024,
        live / 1024
    ))?;
    output::line(format_args!(
        "since start  {} published, {} confirmed by {} syncs, {} delivered, {} acknowledgements",
        counters.published,
        counters.confirmed,
        counters.syncs,
        counters.delivered,
        counters.acknowledged
    ))?;
    Ok(Outcome::Holds)
}

fn messages(place: &Place, of: OfVhost, deed: Deed) -> anyhow::Result<Outcome> {
    let vhost = of.vhost;
    let Answer::Messages { messages } = ask(&place.state, &Ask::Vhost { vhost, deed })? else {
        return unexpected();
    };
    if place.json {
        output::json(&messages)?;
        return Ok(Outcome::Holds);
    }
    for message in messages {
        let Message {
            exchange,
            routing_key,
            redelivered,
            text,
            base64,
        } = message;
        let again = if redelivered { " again" } else { "" };
        let exchange = or_dash(Some(exchange).filter(|name| !name.is_empty()));
        output::line(format_args!("{exchange} {routing_key}{again}"))?;
        output::line(
            text.or(base64.map(|base64| format!("base64 {base64}")))
                .unwrap_or_default(),
        )?;
    }
    Ok(Outcome::Holds)
}

/// So many at a time that the broker serves others in between.
fn move_all(
    place: &Place,
    of: &OfVhost,
    from: &str,
    to: &str,
    count: usize,
) -> anyhow::Result<Outcome> {
    let mut moved = 0;
    while moved < count {
        let deed = Deed::Move {
            from: from.to_owned(),
            to: to.to_owned(),
            count: count - moved,
        };
        let vhost = of.vhost.clone();
        match ask(&place.state, &Ask::Vhost { vhost, deed })? {
            Answer::Done { messages: 0 } => break,
            Answer::Done { messages } => moved += messages,
            _ => return unexpected(),
        }
    }
    tell(place, moved, "moved")
}

fn done(place: &Place, of: OfVhost, deed: Deed, what: &str) -> anyhow::Result<Outcome> {
    let vhost = of.vhost;
    match ask(&place.state, &Ask::Vhost { vhost, deed })? {
        Answer::Done { messages } => tell(place, messages, what),
        _ => unexpected(),
    }
}

fn tell(place: &Place, messages: usize, what: &str) -> anyhow::Result<Outcome> {
    if place.json {
        output::json(&serde_json::json!({ "messages": messages }))?;
    } else if !what.is_empty() {
        output::tell(format_args!("{messages} messages {what}"));
    }
    Ok(Outcome::Holds)
}

fn simple(place: &Place, asked: &Ask) -> anyhow::Result<Outcome> {
    match ask(&place.state, asked)? {
        Answer::Done { messages } => tell(place, messages, ""),
        _ => unexpected(),
    }
}

/// The default one goes only for whoever says that it is meant.
fn rm_vhost(place: &Place, name: String, default: bool) -> anyhow::Result<Outcome> {
    if name == DEFAULT_VHOST && !default {
        let message = "`/` is the virtual host of all programs that name none, and is not deleted";
        let remedy = "if it is meant: `mainstay queue rm-vhost / --default`; `mainstay queue vhost /` makes it anew, empty, and `permit` lets users in";
        return Err(Failure::new(Outcome::WrongInput, message)
            .remedy(remedy)
            .into());
    }
    simple(place, &Ask::RemoveVhost { name })
}

fn export(place: &Place) -> anyhow::Result<Outcome> {
    let Answer::Definitions { definitions } = ask(&place.state, &Ask::Export)? else {
        return unexpected();
    };
    output::json(&definitions)?;
    Ok(Outcome::Holds)
}

fn import(place: &Place, file: &Path) -> anyhow::Result<Outcome> {
    let context = || format!("cannot read definitions from `{}`", file.display());
    let text = std::fs::read(file).with_context(context)?;
    let definitions = serde_json::from_slice(&text).with_context(context)?;
    for (kind, count) in mainstay_broker::left_out(&definitions) {
        output::warn(format_args!(
            "{count} of `{kind}` are not in this version, and left out"
        ));
    }
    let copies = mainstay_broker::policies_with_copies(&definitions);
    let outcome = simple(place, &Ask::Import { definitions })?;
    for name in &copies {
        policy::tell_copies(name);
    }
    Ok(outcome)
}

/// Reads the log of a broker that does not run.
fn fsck(place: &Place) -> anyhow::Result<Outcome> {
    let checked = mainstay_broker::check(&place.state).context("cannot check the broker's log")?;
    if place.json {
        let damage: Vec<String> = checked.damage.clone();
        output::json(&serde_json::json!({
            "messages": checked.messages, "definitions": checked.definitions, "segments": checked.segments, "damage": damage,
        }))?;
    } else {
        output::line(format_args!(
            "{} messages and {} definitions in {} segments",
            checked.messages, checked.definitions, checked.segments
        ))?;
        for damage in &checked.damage {
            output::line(damage)?;
        }
    }
    Ok(if checked.damage.is_empty() {
        Outcome::Holds
    } else {
        Outcome::DoesNotHold
    })
}

fn standard_input(most: u64) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut input = std::io::stdin().take(most + 1);
    input
        .read_to_end(&mut read)
        .context("cannot read standard input")?;
    anyhow::ensure!(
        u64::try_from(read.len())? <= most,
        "standard input has more than {most} bytes"
    );
    Ok(read)
}

fn unexpected() -> anyhow::Result<Outcome> {
    anyhow::bail!("the answer is that to another call")
}

/// What is said where no broker is.
pub(super) fn no_broker(state: &Path) -> Failure {
    let message = format!("no broker runs on `{}`", state.display());
    let remedy = "start `mainstay dev`, or `mainstay run` with a node file whose roles have `broker`, or name its directory with --state";
    Failure::new(Outcome::Unreachable, message).remedy(remedy)
}

/// One call: a line there, a line back.
pub(super) fn ask(state: &Path, asked: &Ask) -> anyhow::Result<Answer> {
    let path = state.join(SOCKET);
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => no_broker(state).into(),
        _ => anyhow::Error::new(error).context(format!("cannot connect to `{}`", path.display())),
    })?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let context = || format!("cannot ask on `{}`", path.display());
    let mut line = serde_json::to_vec(asked).with_context(context)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(context)?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .with_context(context)?;
    match serde_json::from_str(&line).with_context(context)? {
        Answer::Refused { why } => Err(Failure::new(Outcome::Refused, why).into()),
        answer => Ok(answer),
    }
}
