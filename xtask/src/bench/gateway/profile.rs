//! `bench gateway-profile`: where the processor time of a kept-alive request goes, as text.
//!
//! The gateway is built once more, into a directory of its own: with names and frame pointers, else as in a release.
//! `perf` samples it under full load; then `strace` counts the system calls of both sides, which slows them down, so
//! that no time is read from that part.

use super::{
    CONFIG,
    side::{Features, KEPT, Side},
};
use crate::bench::{
    dev,
    frame::{Extent, Run},
    load::Saturated,
    machine::{Cpus, pin},
};
use crate::tree;
use anyhow::{Context as _, Result, ensure};
use mainstay_testkit::{Ended, Spawned, TempDir, program, wait_until, wait_until_async};
use rustix::process::{Signal, getpid};
use std::{fmt::Write as _, fs, path::Path, process::Command, time::Duration};

const RESULT: &str = "bench/results/gateway-profile.txt";
/// Not a divisor of anything that happens at regular times.
const SAMPLES_PER_S: &str = "1999";
/// Below this a function is not worth a line.
const SHARE_MIN: &str = "0.4";
/// Lines of each list.
const LINES_MAX: usize = 70;
/// How long the tools may take to begin and to end.
const TOOL_DEADLINE: Duration = Duration::from_mins(1);

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    let mainstay = dev::build_with_names()?;
    pin(getpid(), Cpus::Others)?;
    let dir = TempDir::new("bench-profile");
    let duration = Duration::from_secs(run.extent.pick(10, 3));
    let sides = [
        Side::ours(&mainstay, Features::On).await?,
        Side::theirs("haproxy", CONFIG)?,
    ];
    let mut text = String::from(
        "The keep-alive path under full load (wrk, 64 connections, small answers, features on), one thread each.\n\
         Made by `cargo xtask bench gateway-profile`; perf samples the processor's clock, kernel included.\n",
    );
    for side in &sides {
        side.warm_up(&dir).await?;
        let sampled = sample(&dir, side, duration).await?;
        write!(text, "\n== {}\n\n{sampled}", side.name)?;
    }
    for side in &sides {
        let counted = count_calls(&dir, side, duration).await?;
        write!(text, "\n== {}: system calls\n\n{counted}", side.name)?;
    }
    run.say(&text);
    let path = match run.extent {
        Extent::Full => tree::root().join(RESULT),
        Extent::Quick => tree::root().join("target/bench/gateway-profile.txt"),
    };
    fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Two lists of functions: by their own time, and by their own and that of what they call.
async fn sample(dir: &TempDir, side: &Side, duration: Duration) -> Result<String> {
    let data = dir.join(format!("{}.perf", side.pid()));
    let mut record = Command::new(program("perf"));
    record.args(["record", "--freq", SAMPLES_PER_S, "--call-graph", "fp"]);
    record.args(["--pid", &side.pid().to_string(), "--output"]);
    record.arg(&data);
    let perf = Spawned::start(dir, "perf", &mut record);
    let seen = side.flood(dir, KEPT, duration).await?;
    end(&perf).await;
    let mut text = format!(
        "{} requests, {:.0}/s while sampled\n",
        seen.requests, seen.per_second
    );
    for (title, children) in [
        ("by own time", "--no-children"),
        ("with what they call", "--children"),
    ] {
        write!(text, "\n-- functions {title}\n{}", report(&data, children)?)?;
    }
    Ok(text)
}

fn report(data: &Path, children: &str) -> Result<String> {
    let output = Command::new(program("perf"))
        .args(["report", "--stdio", children, "--call-graph", "none"])
        .args(["--percent-limit", SHARE_MIN, "--sort", "symbol", "--input"])
        .arg(data)
        .output()
        .context("cannot start perf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text
        .lines()
        // Behind the name come columns for what was not measured.
        .map(|line| line.trim_end_matches([' ', '-']))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .take(LINES_MAX)
        .collect();
    ensure!(
        !lines.is_empty(),
        "perf found nothing: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(lines.join("\n") + "\n")
}

/// System calls by name, per request.
async fn count_calls(dir: &TempDir, side: &Side, duration: Duration) -> Result<String> {
    let counts = dir.join(format!("{}.strace", side.pid()));
    let mut command = Command::new(program("strace"));
    command.args(["-f", "-c", "-o"]).arg(&counts);
    command.args(["-p", &side.pid().to_string()]);
    let strace = Spawned::start(dir, "strace", &mut command);
    wait_until(TOOL_DEADLINE, "strace is attached", || {
        let log = strace.log();
        if log.contains("attached") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let seen = side.flood(dir, KEPT, duration).await?;
    end(&strace).await;
    let table = fs::read_to_string(&counts).context("strace wrote no counts")?;
    calls_per_request(&table, seen)
}

/// Rewrites the table of `strace -c`.
fn calls_per_request(table: &str, seen: Saturated) -> Result<String> {
    let mut text = format!("{} requests while counted\n", seen.requests);
    let mut sum = 0.0;
    for line in table.lines() {
        // "% time", "seconds", "usecs/call", "calls", perhaps "errors", "syscall".
        let words: Vec<&str> = line.split_whitespace().collect();
        let [share, _, _, calls, .., name] = words.as_slice() else {
            continue;
        };
        let (Ok(_), Ok(calls)) = (share.parse::<f64>(), calls.parse::<f64>()) else {
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
        let per_request = calls / seen.requests as f64;
        if *name == "total" || per_request < 0.001 {
            continue;
        }
        sum += per_request;
        writeln!(text, "{per_request:>8.3} per request  {name}")?;
    }
    ensure!(sum > 0.0, "strace counted nothing:\n{table}");
    writeln!(text, "{sum:>8.3} per request  in all")?;
    Ok(text)
}

/// Ends a tool as Ctrl-C would, so that it writes what it has.
async fn end(tool: &Spawned) {
    tool.signal(Signal::INT);
    let ended = wait_until_async(TOOL_DEADLINE, "the tool ends", async || {
        tool.ended().ok_or_else(|| tool.log())
    })
    .await;
    // Either says by its status that it was interrupted.
    debug_assert!(matches!(ended, Ended::Code(_) | Ended::Signal(_)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_strace_are_told_per_request() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            61.02    0.100000          10      2000           writev\n \
            38.00    0.050000          10      1500       500 recvfrom\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.150000                  3500       500 total\n";
        let seen = Saturated {
            requests: 1000,
            per_second: 1.0,
        };
        let text = calls_per_request(table, seen).unwrap();
        assert!(text.contains("2.000 per request  writev"), "{text}");
        assert!(text.contains("1.500 per request  recvfrom"), "{text}");
        assert!(text.contains("3.500 per request  in all"), "{text}");
        assert!(calls_per_request("nothing", seen).is_err());
    }
}
