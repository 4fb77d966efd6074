//! What happens to floating addresses, for whoever reads it later: the agent, which has it become events. It stands in a
//! file, so that neither a reader that is away nor the end of this process loses any of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mainstay_ids::{Instant, VipName};
use mainstay_kernel::notebook::Notebook;
use mainstay_model::Happening;
use mainstay_model::happening::{Line, Source};

use crate::clock::timestamp;
use crate::host::Host;

/// What waits until everything else of a turn is done: a turn of 32 addresses makes one of each. More are dropped, and
/// are in the log.
const WAITING_MAX: usize = 64;

/// Without an advert of another holder for so long, there is none any more: ten adverts, or one that is written each
/// second.
const HEALED_AFTER: Duration = Duration::from_secs(1);

/// The record, written by this process alone.
#[derive(Debug)]
pub(crate) struct Record {
    notebook: Notebook,
    waiting: Vec<Line>,
}

impl Record {
    /// Goes on with what an earlier process wrote down. What that one held it does not hold any more, however it ended.
    pub(crate) fn begin(state: &Path) -> Self {
        let path = state.join(Source::Vip.record());
        let notebook = Notebook::open(&path, timestamp().0);
        let mut record = Self {
            notebook,
            waiting: Vec::with_capacity(WAITING_MAX),
        };
        for vip in record.left_behind() {
            let why = "the process that held it ended without a word".to_owned();
            let to = None;
            record.note(Happening::AddressGivenUp { vip, why, to });
        }
        record
    }

    /// Addresses that were taken and not given up.
    fn left_behind(&self) -> Vec<VipName> {
        let mut held = BTreeMap::new();
        for (_, text) in self.notebook.lines() {
            match serde_json::from_str::<Line>(text).map(|line| line.what) {
                Ok(Happening::AddressTaken { vip, .. }) => drop(held.insert(vip, true)),
                Ok(
                    Happening::AddressGivenUp { vip, .. }
                    | Happening::AddressWatched { vip, .. }
                    | Happening::AddressIdle { vip, .. },
                ) => drop(held.insert(vip, false)),
                Ok(
                    Happening::SplitSeen { .. }
                    | Happening::SplitHealed { .. }
                    | Happening::ConnectionsFilling { .. }
                    | Happening::ConnectionsRelaxed { .. }
                    | Happening::RulesRepaired { .. }
                    | Happening::ForwardedBy { .. },
                )
                | Err(_) => {}
            }
        }
        let held = held.into_iter().filter(|(_, held)| *held);
        held.map(|(vip, _)| vip).collect()
    }

    /// Takes note of something. It is written down at the end of the turn.
    pub(crate) fn note(&mut self, what: Happening) {
        if self.waiting.len() < WAITING_MAX {
            let at = timestamp();
            self.waiting.push(Line { at, what });
        }
    }

    /// Writes down what was noted. A line that cannot be written is tried again with the next one, since the file is then
    /// written anew.
    pub(crate) fn write_down(&mut self) {
        for line in self.waiting.drain(..) {
            let written = serde_json::to_string(&line)
                .map_err(std::io::Error::other)
                .and_then(|text| self.notebook.write(&text));
            if let Err(error) = written {
                let record = Source::Vip.record();
                tracing::warn!("cannot write down what happened (`{record}`): {error}");
            }
        }
    }
}

/// Another machine that holds the address while this one does.
#[derive(Debug, Default)]
pub(crate) struct Rivals {
    /// Who, and when it counts as gone.
    heard: Option<(IpAddr, Instant)>,
}

impl Rivals {
    /// Takes note of an advert of another holder.
    pub(crate) fn hear(&mut self, now: Instant, from: IpAddr, vip: &VipName, host: &Host) {
        let is_new = self.heard.is_none_or(|(known, _)| known != from);
        self.heard = Some((from, now.after(HEALED_AFTER)));
        if is_new {
            tracing::warn!("({vip}) {from} holds the address, too: the network was split");
            let vip = vip.clone();
            let seen = Happening::SplitSeen { vip, peer: from };
            host.record.borrow_mut().note(seen);
        }
    }

    /// Notices that it is gone.
    pub(crate) fn turn(&mut self, vip: &VipName, host: &Host) {
        let Some((peer, until)) = self.heard else {
            return;
        };
        if host.now() < until {
            return;
        }
        self.heard = None;
        tracing::info!("({vip}) {peer} does not hold the address any more");
        let vip = vip.clone();
        let healed = Happening::SplitHealed { vip, peer };
        host.record.borrow_mut().note(healed);
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.heard.map_or(Instant::NEVER, |(_, until)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_kernel::notebook;
    use mainstay_testkit::TempDir;

    fn told(state: &Path) -> Vec<String> {
        let pages = notebook::read(&state.join(Source::Vip.record()))
            .unwrap()
            .unwrap();
        let lines = pages.lines.iter().map(|(_, text)| text);
        let lines = lines.map(|text| serde_json::from_str::<Line>(text).unwrap());
        lines.map(|line| line.what.to_string()).collect()
    }

    fn taken(vip: &str) -> Happening {
        Happening::AddressTaken {
            vip: VipName::parse(vip).unwrap(),
            why: "a test".to_owned(),
            from: None,
        }
    }

    #[test]
    fn what_a_killed_holder_held_is_given_up_by_the_next_one_and_once() {
        let state = TempDir::new("vip-happened");
        let mut killed = Record::begin(state.path());
        for vip in ["one", "other"] {
            killed.note(taken(vip));
        }
        let vip = VipName::parse("other").unwrap();
        let (why, to) = ("a test".to_owned(), None);
        killed.note(Happening::AddressGivenUp { vip, why, to });
        killed.write_down();
        drop(killed);
        Record::begin(state.path()).write_down();
        let all = told(state.path());
        assert_eq!(all.len(), 4, "{all:?}");
        assert_eq!(
            all[3],
            "one is not held here any more: the process that held it ended without a word"
        );
        Record::begin(state.path()).write_down();
        assert_eq!(told(state.path()), all);
    }

    #[test]
    fn what_a_turn_makes_too_much_of_is_dropped() {
        let state = TempDir::new("vip-happened-much");
        let mut record = Record::begin(state.path());
        for _ in 0..WAITING_MAX + 9 {
            record.note(taken("one"));
        }
        record.write_down();
        assert_eq!(told(state.path()).len(), WAITING_MAX);
    }
}
