//! `mainstay vip`: asks the process that holds the floating addresses.
//!
//! Over its own socket: a node may have floating addresses and no control centre.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mainstay_ids::VipName;
use mainstay_vip::view::{Answer, Shown, ShownVip, State};
use tokio::time::{Instant, sleep};

use super::{or_dash, print_table, table};
use crate::arguments::{Place, VipDeed};
use crate::outcome::{Failure, Outcome};
use crate::output;

/// How long an answer may take: it is made between two adverts.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a move may take: twice the longest interval and skew that anybody offers for.
const MOVE_TIME: Duration = Duration::from_secs(20);
/// How often it is looked whether it is over.
const POLL: Duration = Duration::from_millis(20);

pub(crate) async fn run(place: &Place, deed: Option<VipDeed>) -> anyhow::Result<Outcome> {
    match deed {
        None => show(place),
        Some(VipDeed::Metrics) => metrics(place),
        Some(VipDeed::Move { name }) => give_away(place, &name).await,
    }
}

/// As the gateway shows them on `/metrics`: for nodes without one.
fn metrics(place: &Place) -> anyhow::Result<Outcome> {
    let mut text = String::new();
    let context = || format!("cannot ask on `{}`", socket(place).display());
    let mut reader = call(place, "metrics")?;
    reader.read_to_string(&mut text).with_context(context)?;
    output::line(text.trim_end())?;
    Ok(Outcome::Holds)
}

fn show(place: &Place) -> anyhow::Result<Outcome> {
    let shown = shown(place)?;
    if place.json {
        output::json(&shown)?;
        return Ok(Outcome::Holds);
    }
    let heading = [
        "NAME",
        "STATE",
        "ADDRESS",
        "INTERFACE",
        "VRID",
        "PRIORITY",
        "MASTER",
        "PEERS",
    ];
    let mut rows = table(&heading);
    for vip in &shown.vips {
        let peers = vip.peers.iter();
        let peers = peers.map(|peer| format!("{} ({})", peer.address, peer.priority));
        let peers: Vec<String> = peers.collect();
        rows.add_row([
            vip.name.to_string(),
            vip.state.to_string(),
            vip.addresses.join(", "),
            vip.interface.clone(),
            vip.vrid.to_string(),
            vip.priority.to_string(),
            or_dash(vip.master),
            if peers.is_empty() {
                "-".to_owned()
            } else {
                peers.join(", ")
            },
        ]);
    }
    print_table(&rows)?;
    for vip in &shown.vips {
        show_past(vip)?;
    }
    if let Err(why) = &shown.real_time {
        output::warn(format_args!("note: not scheduled in real time: {why}"));
    }
    Ok(Outcome::Holds)
}

fn show_past(vip: &ShownVip) -> anyhow::Result<()> {
    output::line("")?;
    output::line(format_args!(
        "{}: an advert every {} ms",
        vip.name, vip.advert_ms
    ))?;
    if let Some(fault) = &vip.fault {
        output::line(format_args!("  {fault}"))?;
    }
    for track in &vip.tracks {
        let works = if track.works { "works" } else { "is dead" };
        output::line(format_args!("  {} {works}", track.what))?;
    }
    for moment in &vip.past {
        output::line(format_args!(
            "  {}  {}: {}",
            moment.at, moment.state, moment.why
        ))?;
    }
    Ok(())
}

async fn give_away(place: &Place, name: &VipName) -> anyhow::Result<Outcome> {
    match ask(place, &format!("move {name}"))? {
        Answer::Moving => {}
        Answer::Refused(why) => {
            let remedy = "`mainstay vip` on each machine shows who holds what";
            return Err(Failure::new(Outcome::Refused, why).remedy(remedy).into());
        }
        Answer::Shown(_) | Answer::Metrics(_) => {
            anyhow::bail!("the answer is that to another call")
        }
    }
    let mut deadline = Instant::now() + MOVE_TIME;
    let mut told = false;
    loop {
        let shown = shown(place)?;
        let vip = shown.vips.into_iter().find(|vip| vip.name == *name);
        let vip = vip.with_context(|| format!("there is no `{name}` any more"))?;
        if vip.state != State::Master {
            let to = vip
                .master
                .map_or_else(|| "another machine".to_owned(), |to| to.to_string());
            output::line(format_args!("{to} holds {name} now"))?;
            return Ok(Outcome::Holds);
        }
        if vip.leaves {
            // The gateway has its own bound for that.
            deadline = Instant::now() + MOVE_TIME;
            if !told {
                told = true;
                output::warn("the gateway finishes what is under way first");
            }
            sleep(POLL).await;
            continue;
        }
        if !vip.offers {
            let message = format!("nobody took `{name}`: it stays here");
            let remedy = "`mainstay vip` there, or keepalived's journal, says why; a peer that is unfit takes nothing";
            return Err(Failure::new(Outcome::DoesNotHold, message)
                .remedy(remedy)
                .into());
        }
        if Instant::now() >= deadline {
            let message = format!("`{name}` was not taken in {MOVE_TIME:?}; it is still offered");
            return Err(Failure::new(Outcome::DoesNotHold, message).into());
        }
        sleep(POLL).await;
    }
}

fn shown(place: &Place) -> anyhow::Result<Shown> {
    match ask(place, "show")? {
        Answer::Shown(shown) => Ok(shown),
        Answer::Refused(why) => anyhow::bail!("it was refused: {why}"),
        Answer::Moving | Answer::Metrics(_) => anyhow::bail!("the answer is that to another call"),
    }
}

/// One call: a line there, a line back.
fn ask(place: &Place, words: &str) -> anyhow::Result<Answer> {
    let context = || format!("cannot ask on `{}`", socket(place).display());
    let mut line = String::new();
    call(place, words)?
        .read_line(&mut line)
        .with_context(context)?;
    serde_json::from_str(&line).with_context(context)
}

fn socket(place: &Place) -> PathBuf {
    place.state.join(mainstay_vip::SOCKET)
}

/// Says a line, and reads what comes back.
fn call(place: &Place, words: &str) -> anyhow::Result<BufReader<UnixStream>> {
    let path = socket(place);
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let message = format!("nothing holds floating addresses on `{}`", place.state.display());
            let remedy = "start `mainstay run` with a node file that has `[vip.NAME]`, or name its directory with --state";
            let failure = Failure::new(Outcome::Unreachable, message).remedy(remedy);
            anyhow::Error::from(failure)
        }
        _ => anyhow::Error::new(error).context(format!("cannot connect to `{}`", path.display())),
    })?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    writeln!(stream, "{words}").with_context(|| format!("cannot ask on `{}`", path.display()))?;
    Ok(BufReader::new(stream))
}
