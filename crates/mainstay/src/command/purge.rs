//! `mainstay purge`: takes away what forwarding left in the kernel of this network namespace.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use mainstay_forward::purge::{self, PurgeError, Trace};
use mainstay_forward::router;
use serde::Serialize;

use super::forward::table;
use crate::arguments::{Place, Purge};
use crate::outcome::{Failure, Outcome};
use crate::output;
use crate::supervisor::lock;

/// What is written with `--json`.
#[derive(Serialize)]
struct Done {
    removed: bool,
    traces: Vec<String>,
}

pub(crate) fn run(place: &Place, asked: &Purge) -> anyhow::Result<Outcome> {
    if !asked.force {
        refuse_while_used(&place.state)?;
    }
    let settings = router::file(&place.state);
    let mut traces: Vec<Trace> = Vec::new();
    let table = table()?;
    let result = if asked.yes {
        purge::remove(&table, &settings, |trace| {
            if !place.json {
                output::tell(format_args!("removed: {trace}"));
            }
            traces.push(trace);
        })
    } else {
        purge::find(&table, &settings).map(|found| traces = found)
    };
    result.map_err(explained)?;
    if place.json {
        output::json(&Done {
            removed: asked.yes,
            traces: traces.iter().map(Trace::to_string).collect(),
        })?;
        return Ok(Outcome::Holds);
    }
    if traces.is_empty() {
        output::line("there is nothing of ours in the kernel of this network namespace")?;
    } else if !asked.yes {
        for trace in &traces {
            output::line(format_args!("would remove: {trace}"))?;
        }
        output::line("nothing was changed; `mainstay purge --yes` does it")?;
    }
    Ok(Outcome::Holds)
}

fn explained(error: PurgeError) -> anyhow::Error {
    if error.is_forbidden() {
        let message = format!("{:#}", anyhow::Error::from(error));
        return Failure::new(Outcome::Failed, message)
            .remedy("run it as root")
            .into();
    }
    error.into()
}

/// An agent would make it all again within a second, and clients would notice.
fn refuse_while_used(state: &Path) -> anyhow::Result<()> {
    let who = if lock::holder(state)?.is_some() {
        Some(format!("`{}` is in use", state.display()))
    } else {
        agent()?.map(|pid| format!("an agent runs in this network namespace (process {pid})"))
    };
    let Some(who) = who else {
        return Ok(());
    };
    Err(
        Failure::new(Outcome::WrongInput, format!("{who}: nothing was removed"))
            .remedy("stop it first: Ctrl-C, or `systemctl stop mainstay`; or say --force")
            .into(),
    )
}

/// An agent of whichever state directory in this network namespace.
fn agent() -> anyhow::Result<Option<u32>> {
    let own = fs::read_link("/proc/self/ns/net").context("cannot look at /proc")?;
    let processes = fs::read_dir("/proc").context("cannot list the processes")?;
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Of one that has ended meanwhile nothing is found.
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_agent = words
            .windows(2)
            .any(|pair| pair == [&b"internal"[..], b"agent"]);
        // Of another account's it is not told; then it may be this one.
        let namespace = fs::read_link(process.path().join("ns/net"));
        if is_agent && namespace.map_or(true, |namespace| namespace == own) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}
