//! What happens on the node beside its instances. Its record is kept there; a report has the latest of it, again and
//! again, and what is new becomes events. What was seen is durable with them, so that each becomes one event, in its
//! order, whoever was killed or away meanwhile.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use mainstay_ids::{NodeName, Timestamp};
use mainstay_model::EventKind;
use mainstay_model::happening::{Happened, Happenings, REPORTED_MAX, Source};

use super::contract::Clock;
use super::journal::Journal;

/// How far one record was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Mark {
    since: u64,
    number: u64,
}

/// The form in which it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct SeenRecord {
    source: Source,
    mark: Mark,
}

/// How far each record was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct HappeningsSeen(BTreeMap<Source, Mark>);

impl HappeningsSeen {
    pub(super) fn restore(records: Vec<SeenRecord>) -> Self {
        let marks = records.into_iter();
        Self(marks.map(|one| (one.source, one.mark)).collect())
    }

    pub(super) fn records(&self) -> Vec<SeenRecord> {
        let marks = self.0.iter();
        marks
            .map(|(source, mark)| SeenRecord {
                source: *source,
                mark: *mark,
            })
            .collect()
    }

    /// Takes in a report's. Those of several sources come in the order of their times.
    pub(super) fn observe(
        &mut self,
        clock: Clock,
        node: &NodeName,
        reported: &[Happenings],
        journal: &mut Journal,
    ) {
        let mut news: Vec<(Timestamp, &Happened)> = Vec::new();
        let mut untold = 0;
        for one in reported {
            let (fresh, missed) = self.take(one);
            // Of one source they stay in their order, also if its clock was set back.
            let mut latest = Timestamp(0);
            news.extend(fresh.into_iter().map(|one| {
                latest = latest.max(one.at);
                (latest, one)
            }));
            untold += missed;
        }
        if untold > 0 {
            let node = node.clone();
            let count = untold;
            journal.record(clock, None, EventKind::HappenedUntold { node, count });
        }
        news.sort_by_key(|(at, _)| *at);
        for (_, one) in news {
            let happened = EventKind::Happened {
                node: node.clone(),
                happened_at: one.at,
                happened: one.what.clone(),
            };
            journal.record(clock, None, happened);
        }
    }

    /// Those that were not seen, and how many there were before them that nobody tells.
    fn take<'a>(&mut self, reported: &'a Happenings) -> (Vec<&'a Happened>, u64) {
        let latest = &reported.latest;
        let latest = &latest[latest.len().saturating_sub(REPORTED_MAX)..];
        let Some(last) = latest.iter().map(|one| one.number).max() else {
            return (Vec::new(), 0);
        };
        let seen = self.0.get(&reported.source);
        let seen = seen.filter(|mark| mark.since == reported.since);
        let before = seen.map(|mark| mark.number);
        let is_new = |one: &&Happened| before.is_none_or(|seen| one.number > seen);
        let fresh: Vec<&Happened> = latest.iter().filter(is_new).collect();
        let told = u64::try_from(fresh.len()).unwrap_or(u64::MAX);
        let missed = last
            .saturating_sub(before.unwrap_or(0))
            .saturating_sub(told);
        if !fresh.is_empty() {
            let mark = Mark {
                since: reported.since,
                number: last,
            };
            self.0.insert(reported.source, mark);
        }
        (fresh, missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString as _};
    use alloc::vec;
    use mainstay_ids::{Instant, VipName};
    use mainstay_model::Happening;

    fn happened(number: u64, at: u64) -> Happened {
        Happened {
            number,
            at: Timestamp(at),
            what: Happening::AddressIdle {
                vip: VipName::parse("entry").unwrap(),
                why: number.to_string(),
            },
        }
    }

    fn of(source: Source, since: u64, numbers: core::ops::RangeInclusive<u64>) -> Happenings {
        Happenings {
            source,
            since,
            latest: numbers
                .map(|number| happened(number, number * 10))
                .collect(),
        }
    }

    /// What became events of it: `why`s, and how many were missed.
    fn told(seen: &mut HappeningsSeen, reported: &[Happenings]) -> Vec<String> {
        let mut journal = Journal::default();
        let clock = Clock {
            now: Instant::START,
            at: Timestamp(1),
        };
        seen.observe(
            clock,
            &NodeName::parse("n").unwrap(),
            reported,
            &mut journal,
        );
        let events = journal.take().into_iter().map(|event| match event.kind {
            EventKind::Happened {
                happened: Happening::AddressIdle { why, .. },
                ..
            } => why,
            EventKind::HappenedUntold { count, .. } => alloc::format!("-{count}"),
            other => panic!("{other:?}"),
        });
        events.collect()
    }

    #[test]
    fn each_becomes_one_event_however_often_and_late_it_is_reported() {
        let mut seen = HappeningsSeen::default();
        assert_eq!(told(&mut seen, &[of(Source::Vip, 7, 1..=2)]), ["1", "2"]);
        let newer = of(Source::Vip, 7, 1..=3);
        assert_eq!(told(&mut seen, &[newer.clone()]), ["3"]);
        // One that was overtaken on its way.
        assert!(told(&mut seen, &[of(Source::Vip, 7, 1..=2)]).is_empty());
        // The next control centre knows what this one knew, and no more.
        let mut next = HappeningsSeen::restore(seen.records());
        assert!(told(&mut next, &[newer]).is_empty());
        assert_eq!(told(&mut next, &[of(Source::Vip, 7, 2..=4)]), ["4"]);
    }

    #[test]
    fn what_nobody_could_be_told_of_is_counted_and_a_record_that_was_lost_begins_anew() {
        let mut seen = HappeningsSeen::default();
        assert_eq!(told(&mut seen, &[of(Source::Vip, 7, 3..=3)]), ["-2", "3"]);
        assert_eq!(
            told(&mut seen, &[of(Source::Vip, 7, 6..=7)]),
            ["-2", "6", "7"]
        );
        assert_eq!(told(&mut seen, &[of(Source::Vip, 8, 1..=1)]), ["1"]);
        assert!(told(&mut seen, &[of(Source::Vip, 8, 1..=1)]).is_empty());
        let many = u64::try_from(REPORTED_MAX).unwrap() + 10;
        let told = told(&mut seen, &[of(Source::Agent, 1, 1..=many)]);
        assert_eq!((told.len(), told[0].as_str()), (REPORTED_MAX + 1, "-10"));
    }

    #[test]
    fn those_of_two_sources_come_in_the_order_of_their_times() {
        let mut seen = HappeningsSeen::default();
        let vip = Happenings {
            latest: vec![happened(1, 20), happened(2, 40)],
            ..of(Source::Vip, 1, 1..=1)
        };
        let agent = Happenings {
            latest: vec![happened(1, 10), happened(2, 30)],
            ..of(Source::Agent, 1, 1..=1)
        };
        assert_eq!(told(&mut seen, &[vip, agent]), ["1", "1", "2", "2"]);
        let set_back = Happenings {
            latest: vec![happened(3, 50), happened(4, 5)],
            ..of(Source::Vip, 1, 1..=1)
        };
        assert_eq!(told(&mut seen, &[set_back]), ["3", "4"]);
    }
}
