//! `mainstay upgrade`: asks the supervisor for another gateway process.
//!
//! By a signal to the supervisor and its record: a node that has a gateway alone has nobody else to
//! ask.

use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::output;
use crate::supervisor::lock;
use crate::supervisor::record::Record;

/// How long the upgrade may take: the drain of the one before, if that is under way, and its own
/// time.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked.
const POLL: Duration = Duration::from_millis(50);

pub(crate) async fn run(place: &Place) -> anyhow::Result<Outcome> {
    let Some(supervisor) = lock::holder(&place.state)? else {
        let message = format!("no supervisor runs on `{}`", place.state.display());
        let remedy = "start `mainstay run` or `mainstay dev`, or name its directory with --state";
        return Err(Failure::new(Outcome::Unreachable, message)
            .remedy(remedy)
            .into());
    };
    let count = || -> anyhow::Result<_> {
        let record = Record::load(&place.state)?;
        Ok(record.map(|record| record.upgrade).unwrap_or_default())
    };
    let before = count()?.count;
    supervisor
        .signal(Signal::USR1)
        .context("cannot ask the supervisor")?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let upgraded = count()?;
        match upgraded.failed {
            _ if upgraded.count == before => {}
            None => {
                output::line("the gateway was replaced")?;
                return Ok(Outcome::Holds);
            }
            Some(why) => {
                let message = format!("the gateway was not replaced: {why}");
                let remedy = "the old one goes on; `logs/gateway.log` has what the new one said";
                return Err(Failure::new(Outcome::DoesNotHold, message)
                    .remedy(remedy)
                    .into());
            }
        }
        sleep(POLL).await;
    }
    let message = format!("the supervisor did not replace the gateway within {PATIENCE:?}");
    let remedy = "it does so as soon as the one before has finished; its output tells";
    Err(Failure::new(Outcome::Failed, message).remedy(remedy).into())
}
