//! The table of forwarding emptied, and deleted, by somebody else.

use std::time::{Duration, Instant};

use super::outage::{nft, nft_with};
use super::stage::{PAUSE, Stage};
use super::{Outage, Trouble, Victims};

/// The table of a node that forwards.
const TABLE: &str = "inet mainstay";

/// What is done to it, in turn.
const HARMS: [&str; 2] = ["flush", "delete"];

/// How long clients may be without the service: what somebody did to the table is undone within a second.
const BAR: Duration = Duration::from_secs(1);

/// After this long it is not waited for any more.
const REPAIR_DEADLINE: Duration = Duration::from_secs(5);

/// Between two looks, each of which starts a program.
const LOOK: Duration = Duration::from_millis(50);

impl Stage {
    pub(super) async fn harm_table(&mut self) -> Result<(), Trouble> {
        if !rustix::process::geteuid().is_root() {
            let why = "tables of nftables can be changed by root only, with CAP_NET_ADMIN: run `mainstay \
                       prove` as root, or leave `forward-flush` out";
            return Err(Trouble::CannotBreak(why.to_owned()));
        }
        // As `nft` writes them: one that somebody else changes to and fro meanwhile is no proof.
        let whole = rules().await?.ok_or_else(|| {
            let why = "there is no table `inet mainstay` in this network namespace: nothing is forwarded \
                       by nftables here; is Mainstay in another one?";
            Trouble::CannotBreak(why.to_owned())
        })?;
        let mut round = 0;
        while round < HARMS.len() || self.has_time() {
            let harm = HARMS[round % HARMS.len()];
            let fault = self.begin(format!("the table `{TABLE}` of nftables: {harm}"));
            let begin = self.started.elapsed();
            nft(&format!("{harm} table {TABLE}\n")).await?;
            self.outages.push(Outage {
                begin,
                bar: BAR,
                victims: Victims::BySending,
            });
            self.wait_for(&whole).await?;
            self.whole_again(fault);
            self.pause(PAUSE).await?;
            round += 1;
        }
        Ok(())
    }

    async fn wait_for(&self, whole: &str) -> Result<(), Trouble> {
        let begin = Instant::now();
        loop {
            let seen = match rules().await? {
                Some(rules) if rules == whole => return Ok(()),
                Some(rules) => format!(
                    "it has {} lines of {}",
                    rules.lines().count(),
                    whole.lines().count()
                ),
                None => "there is none".to_owned(),
            };
            if begin.elapsed() >= REPAIR_DEADLINE {
                return Err(Trouble::NotInTime {
                    what: format!("the table `{TABLE}` is not back"),
                    deadline: REPAIR_DEADLINE,
                    seen,
                });
            }
            self.pause(LOOK).await?;
        }
    }
}

/// Chains, sets and rules of the table, without the elements; `None`: it is not there.
async fn rules() -> Result<Option<String>, Trouble> {
    let tables = nft("list tables\n").await?;
    let is_there = tables
        .lines()
        .any(|line| line.trim() == format!("table {TABLE}"));
    if !is_there {
        return Ok(None);
    }
    let listed = nft_with(&["--terse"], &format!("list table {TABLE}\n")).await;
    // Should it go meanwhile, that is one more way not to be there.
    Ok(listed.ok())
}
