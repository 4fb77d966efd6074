//! `forward-crowd`: one service is rolled out, scaled, and loses instances, among thousands of others.

use std::time::{Duration, Instant};

use super::board::OTHERS;
use super::clients::Kind;
use super::field::Place;
use super::scene::{PAUSE, Scene};
use crate::scenario::{Outage, Trouble, Victims};
use crate::verdict::Figure;

const WEB: &str = "web";
const ADDRESS: &str = "10.96.255.1:80";
/// How many instances it has.
const INSTANCES: u64 = 3;
/// Where the first one listens; each one that is started has a port of its own.
const PORT: u16 = 20_000;

/// Until whoever was led to a killed instance has found out, once nobody is led to it any more. A connection
/// that the kernel led there before, or that was under way there, is lost, and nobody can repeat it.
const KILL_NOTICED: Duration = Duration::from_millis(100);

/// The instances of the service at this time.
struct Instances {
    there: Vec<u64>,
    next: u64,
}

impl Scene {
    pub(crate) fn prepare_crowd(&mut self) -> Result<(), Trouble> {
        self.board.crowd();
        self.demand.kinds = vec![Kind::Fresh, Kind::Kept, Kind::Foreign];
        self.serve(WEB, address(ADDRESS));
        for number in 1..=INSTANCES {
            self.start(WEB, number, place(number))?;
        }
        self.publish()?;
        let programmed = self.record.changes.pop().unwrap_or_default();
        self.record.figures.push(Figure {
            what: format!("all of {} services programmed", u32::from(OTHERS) + 1),
            unit: "ms",
            value: ms(programmed),
            bar: None,
        });
        Ok(())
    }

    pub(crate) fn play_crowd(&mut self) -> Result<(), Trouble> {
        let mut web = Instances {
            there: (1..=INSTANCES).collect(),
            next: INSTANCES + 1,
        };
        let mut round = 0;
        while round == 0 || self.has_time() {
            self.roll_out(&mut web)?;
            self.scale(&mut web)?;
            self.lose_one(&mut web)?;
            round += 1;
        }
        let mut changes = self.record.changes.clone();
        changes.sort_unstable();
        let of = format!(
            "of {} changes of one among {} services",
            changes.len(),
            u32::from(OTHERS) + 1
        );
        let half = changes.get(changes.len() / 2).copied().unwrap_or_default();
        let last = changes.last().copied().unwrap_or_default();
        for (what, value) in [("half", half), ("the slowest", last)] {
            self.record.figures.push(Figure {
                what: format!("{what} {of} in force after"),
                unit: "ms",
                value: ms(value),
                bar: None,
            });
        }
        Ok(())
    }

    fn add_one(&mut self, web: &mut Instances) -> Result<(), Trouble> {
        self.start(WEB, web.next, place(web.next))?;
        self.publish()?;
        web.there.push(web.next);
        web.next += 1;
        Ok(())
    }

    fn roll_out(&mut self, web: &mut Instances) -> Result<(), Trouble> {
        let fault = self.record.begin(format!("{WEB} rolled out"));
        for former in web.there.clone() {
            self.add_one(web)?;
            self.withdraw(WEB, former)?;
            web.there.retain(|one| *one != former);
        }
        self.record.whole_again(fault);
        self.pause(PAUSE)
    }

    fn scale(&mut self, web: &mut Instances) -> Result<(), Trouble> {
        let fault = self
            .record
            .begin(format!("{WEB} scaled by two more and two fewer"));
        self.add_one(web)?;
        self.add_one(web)?;
        for _ in 0..2 {
            if let Some(last) = web.there.pop() {
                self.withdraw(WEB, last)?;
            }
        }
        self.record.whole_again(fault);
        self.pause(PAUSE)
    }

    fn lose_one(&mut self, web: &mut Instances) -> Result<(), Trouble> {
        let victim = web.there.remove(0);
        let fault = self.record.begin(format!("{WEB}-{victim} killed"));
        let killed = Instant::now();
        let begin = self.record.since(killed);
        self.kill(WEB, victim);
        self.board.bury(WEB, victim);
        self.publish()?;
        let bar = killed.elapsed() + KILL_NOTICED;
        self.record.outages.push(Outage {
            begin,
            bar,
            victims: Victims::ByEnd,
        });
        self.add_one(web)?;
        self.record.whole_again(fault);
        self.pause(PAUSE)
    }
}

fn place(number: u64) -> (Place, u16) {
    // More than ten thousand are not started in a proof.
    let port = PORT + u16::try_from(number % 10_000).unwrap_or(0);
    (Place::Node, port)
}

pub(super) fn address(text: &str) -> std::net::SocketAddr {
    text.parse().expect("the addresses are literals of ours")
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
