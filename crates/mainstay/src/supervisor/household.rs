//! A state directory with the processes that are kept on it, from the lock to the end.

use anyhow::Context;
use mainstay_agent::Leftovers;

use super::family::Family;
use super::front::{Hangup, Rest, Stops, end_leftovers};
use super::lock::{self, StateLock};
use super::record::Record;
use super::settings::Settings;
use crate::output;
use crate::safekeeping::refuse_half_restored;

/// What a supervisor holds while it runs.
pub(super) struct Household {
    pub(super) family: Family,
    leftovers: Leftovers,
    /// Last: given up when everything else has ended.
    _lock: StateLock,
}

impl Household {
    /// Takes the directory, adopts what runs there and starts what is missing.
    pub(super) async fn set_up(
        settings: Settings,
        hangup: Hangup,
    ) -> anyhow::Result<(Self, Stops)> {
        let state = settings.state.clone();
        let lock = lock::take(&state)?;
        refuse_half_restored(&state)?;
        // Known from now on, whatever becomes of the directory.
        let leftovers = Leftovers::of(&state).context("cannot use the state directory")?;
        // Before anything is started: a wish to stop from now on ends what was.
        let stops = Stops::new(hangup)?;
        let mut family = Family::adopt(settings, Record::load(&state)?.as_ref()).await?;
        if let Err(error) = family.start_missing() {
            family.stop().await?;
            return Err(error);
        }
        let household = Self {
            family,
            leftovers,
            _lock: lock,
        };
        Ok((household, stops))
    }

    /// Ends the processes, and the instances if they are to end. `command` adopts them else.
    pub(super) async fn wind_up(self, rest: Rest, command: &str) -> anyhow::Result<()> {
        // Nobody starts instances after this.
        let stopped = self.family.stop().await;
        match rest {
            Rest::Ends => end_leftovers(self.leftovers).await?,
            Rest::GoesOn => output::warn(format_args!(
                "instances that run go on; the next `{command}` here adopts them"
            )),
        }
        stopped
    }
}
