//! `mainstay prove --scenario burst`: ten times the rate, through the broker.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use mainstay_broker::view::{Answer, Ask};
use mainstay_prove::burst::{self, Options, Standing, View};
use tokio_util::sync::CancellationToken;

use crate::arguments::{Place, Prove};
use crate::command::queue;
use crate::outcome::{Failure, Outcome};
use crate::output;
use crate::supervisor::record::Record;

pub(super) async fn run(place: &Place, prove: &Prove) -> anyhow::Result<Outcome> {
    let json = place.json;
    let record = Record::load(&place.state)?;
    let Some(broker) = record.and_then(|record| record.broker) else {
        return Err(queue::no_broker(&place.state).into());
    };
    let options = Options {
        broker,
        rate: prove.rate,
        burst: prove.duration,
        view: Arc::new(OfTheBroker(place.state.clone())),
    };
    let stop = CancellationToken::new();
    let tell = move |line: &str| {
        if !json {
            output::warn(format_args!("  {line}"));
        }
    };
    let mut proof = std::pin::pin!(burst::prove(options, tell, stop.clone()));
    let report = loop {
        tokio::select! {
            report = &mut proof => break report,
            _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => stop.cancel(),
        }
    };
    let report = report.map_err(|error| match error {
        error @ burst::Error::Broker { .. } => {
            let failure = Failure::new(
                Outcome::Unreachable,
                format!("{:#}", anyhow::Error::new(error)),
            );
            let remedy =
                "see `mainstay queue status`, and that `guest` may come in with its first password";
            failure.remedy(remedy).into()
        }
        error @ (burst::Error::Stopped | burst::Error::Panic) => anyhow::Error::new(error),
    })?;
    if json {
        output::json(&report)?;
    } else {
        output::line(format_args!("\n{}", burst::render(&report).trim_end()))?;
    }
    Ok(super::outcome(report.outcome))
}

/// What the broker says on its own socket.
#[derive(Debug)]
struct OfTheBroker(PathBuf);

impl View for OfTheBroker {
    fn queue(&self, name: &str) -> Result<Standing, String> {
        let vhost = Some("/".to_owned());
        let answer = queue::ask(&self.0, &Ask::Queues { vhost });
        let queues = match answer.context("the broker was asked") {
            Ok(Answer::Queues { queues }) => queues,
            Ok(_) => return Err("the answer is that to another call".to_owned()),
            Err(error) => return Err(format!("{error:#}")),
        };
        let queue = queues.into_iter().find(|queue| queue.name == name);
        let queue = queue.ok_or("the queue is not there")?;
        Ok(Standing {
            messages: u64::try_from(queue.ready + queue.unacked).unwrap_or(u64::MAX),
            seconds_to_empty: queue.seconds_to_empty,
        })
    }
}
