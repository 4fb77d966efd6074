//! `mainstay prove`: breaks the running system under load and tells what clients saw.

mod burst;

use std::io::IsTerminal;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mainstay_agent::ForwardSeams;
use mainstay_api::client::Server;
use mainstay_model::{Ack, ForwardSettings, Routing};
use mainstay_prove::load::Connections;
use mainstay_prove::{Follower, Forwarding, Options, Progress, Scenario, Verdict, floating};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::API_SOCKET;
use crate::arguments::{Place, Prove, Proved};
use crate::outcome::{Failure, Outcome};
use crate::output;

/// Steps that the display may be behind; a slow terminal loses lines of it, never the verdict.
const PROGRESS_QUEUE: usize = 256;

/// Connections per service: as many as a small web server keeps to a load balancer.
const CONNECTIONS: NonZero<usize> = NonZero::new(32).expect("not zero");

/// The undisturbed round: enough requests for a 99th percentile at 100 a second.
const CONTROL: Duration = Duration::from_secs(3);

/// One sending thread is enough for the highest rate that a demonstration asks for, and leaves the
/// other cores to what is measured.
const WORKERS: NonZero<usize> = NonZero::new(1).expect("not zero");

pub(crate) async fn run(place: &Place, prove: Prove) -> anyhow::Result<Outcome> {
    let json = place.json;
    let (mut running, mut floating, mut bursts) = (Vec::new(), Vec::new(), 0);
    for scenario in &prove.scenario {
        match scenario {
            Proved::Running(scenario) => running.push(*scenario),
            Proved::Floating(scenario) => floating.push(*scenario),
            Proved::Burst => bursts += 1,
        }
    }
    match (running.is_empty(), floating.is_empty(), bursts) {
        (true, false, 0) => {
            let seams = floating::NodeSeams {
                gateway: prove.unsafe_gateway_seams,
                vip: prove.unsafe_vip_seams,
            };
            return run_floating(json, floating, seams).await;
        }
        (true, true, 1) => return burst::run(place, &prove).await,
        (_, true, 0) => {}
        (..) => {
            let message = "`vip-...` is proved on nodes of its own, `burst` on the broker and once, and the others on the services \
                           that run";
            let failure = Failure::new(Outcome::WrongInput, message.to_owned());
            return Err(failure.remedy("ask for them in calls of their own").into());
        }
    }
    let options = options(place, prove, running);
    let (progress, steps) = mpsc::channel(PROGRESS_QUEUE);
    let stop = CancellationToken::new();
    let display = tokio::spawn(show(steps, json));
    let mut proof = std::pin::pin!(mainstay_prove::prove(options, progress, stop.clone()));
    let verdict = loop {
        tokio::select! {
            verdict = &mut proof => break verdict,
            _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => stop.cancel(),
        }
    };
    display.await.context("the display failed")?;
    let verdict = verdict?;
    print(&verdict, json)?;
    Ok(outcome(verdict.outcome))
}

fn options(place: &Place, prove: Prove, asked: Vec<Scenario>) -> Options {
    let usual = || {
        let all = Scenario::ALL.into_iter();
        all.filter(|scenario| scenario.is_usual()).collect()
    };
    let scenarios = if asked.is_empty() { usual() } else { asked };
    Options {
        api: Server::Unix(place.state.join(API_SOCKET)),
        state_dir: Some(place.state.clone()),
        entry: prove.entry,
        scenarios,
        service: prove.service,
        requests: prove.request,
        rate: prove.rate,
        control: CONTROL,
        duration: prove.duration,
        connections: Connections::Kept(CONNECTIONS),
        workers: WORKERS,
        seed: prove.seed,
        forwarding: Some(Arc::new(OfTheAgent(prove.unsafe_forward_seams))),
    }
}

/// Forwarding as an agent does it.
#[derive(Debug)]
struct OfTheAgent(ForwardSeams);

struct AgentFollower(mainstay_agent::Follower);

impl Forwarding for OfTheAgent {
    fn start(
        &self,
        settings: &ForwardSettings,
        state: &Path,
        source: IpAddr,
    ) -> Result<Box<dyn Follower>, String> {
        let started = mainstay_agent::Follower::start(settings, state, source, self.0)?;
        Ok(Box::new(AgentFollower(started)))
    }
}

impl Follower for AgentFollower {
    fn follow(&mut self, routing: Routing) -> Result<Ack, String> {
        self.0.follow(routing)
    }

    fn look(&mut self) -> Ack {
        self.0.look()
    }
}

/// A floating address on two nodes of their own.
async fn run_floating(
    json: bool,
    scenarios: Vec<floating::Scenario>,
    seams: floating::NodeSeams,
) -> anyhow::Result<Outcome> {
    let options = floating::Options {
        program: std::env::current_exe().context("cannot tell our own program")?,
        scenarios,
        seams,
    };
    let stop = CancellationToken::new();
    let mut tell = |line: &str| {
        if !json {
            output::warn(line);
        }
    };
    let mut proof = std::pin::pin!(floating::prove(&options, &mut tell, &stop));
    let verdict = loop {
        tokio::select! {
            verdict = &mut proof => break verdict?,
            _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => stop.cancel(),
        }
    };
    if json {
        output::json(&verdict)?;
    } else {
        output::line(format_args!("\n{}", floating::render(&verdict).trim_end()))?;
    }
    Ok(outcome(verdict.outcome))
}

fn outcome(outcome: mainstay_prove::Outcome) -> Outcome {
    match outcome {
        mainstay_prove::Outcome::Holds => Outcome::Holds,
        mainstay_prove::Outcome::DoesNotHold => Outcome::DoesNotHold,
        mainstay_prove::Outcome::CouldNotRun => Outcome::Failed,
    }
}

fn print(verdict: &Verdict, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(verdict);
    }
    output::line(format_args!(
        "\n{}",
        mainstay_prove::render(verdict).trim_end()
    ))
}

/// Shows the steps on standard error as they come: lines, and on a terminal one line that counts.
async fn show(mut steps: mpsc::Receiver<Progress>, json: bool) {
    let live = std::io::stderr().is_terminal();
    while let Some(step) = steps.recv().await {
        if !json {
            show_step(&step, live);
        }
    }
}

fn show_step(step: &Progress, live: bool) {
    // Erases the counting line, if there is one.
    let clear = if live { "\r\x1b[K" } else { "" };
    match step {
        Progress::Began(scenario) => {
            let what = scenario.describe();
            output::warn(format_args!("{clear}\n{scenario}: {what}"));
            output::warn("  first a round without a fault, to compare with");
        }
        Progress::Breaking(_) => output::warn(format_args!("{clear}  now with faults")),
        Progress::Fault { at_ms, what } => {
            output::warn(format_args!("{clear}  {at_ms:>5} ms  {what}"));
        }
        Progress::Whole { after_ms } => output::warn(format_args!(
            "{clear}            all that is wanted is ready again after {after_ms} ms"
        )),
        Progress::Second {
            second,
            sent,
            ok: _,
            failed,
            p99_ms,
        } if live => output::warn_part(format_args!(
            "{clear}  second {second}: {sent} requests, {failed} failed, p99 {p99_ms} ms"
        )),
        Progress::Second { .. } => {}
        Progress::Ended(report) => {
            output::warn(format_args!(
                "{clear}  {} failed of {}",
                report.failed, report.sent
            ));
        }
    }
}
