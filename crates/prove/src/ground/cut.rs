//! `forward-cut`: the host of an instance is cut off, so that nothing comes back from it, not even a reset.

use std::time::{Duration, Instant};

use super::clients::Kind;
use super::crowd::{address, ms};
use super::field::Place;
use super::scene::{PAUSE, Scene};
use crate::load::REQUEST_DEADLINE;
use crate::scenario::{Outage, Trouble, Victims};
use crate::verdict::Figure;

const WEB: &str = "web";
const ADDRESS: &str = "10.96.255.1:80";
const PORT: u16 = 8001;

/// When the death is declared, as after some probes without an answer. How fast probes notice is theirs.
pub(super) const NOTICED: Duration = Duration::from_millis(300);

/// Until those who wait for the dead instance are told, from the declaration on.
const TOLD: Duration = Duration::from_millis(100);

/// How long it is cut off: longer than any client waits, so that nobody is saved by its coming back.
const CUT: Duration = REQUEST_DEADLINE.saturating_add(Duration::from_secs(1));

impl Scene {
    pub(crate) fn prepare_cut(&mut self) -> Result<(), Trouble> {
        self.demand.kinds = vec![Kind::Fresh, Kind::Kept];
        self.serve(WEB, address(ADDRESS));
        let places = [Place::Node, Place::FirstHost, Place::SecondHost];
        for (place, number) in places.into_iter().zip(1..) {
            self.start(WEB, number, (place, PORT))?;
        }
        self.publish()
    }

    pub(crate) fn play_cut(&mut self) -> Result<(), Trouble> {
        // Which instance is on which host, and the number of the next one.
        let mut hosts = [(Place::FirstHost, 2), (Place::SecondHost, 3)];
        let mut next = 4;
        let mut round = 0;
        while round == 0 || self.has_time() {
            let index = round % hosts.len();
            let (place, number) = hosts[index];
            self.cut_off(place, number)?;
            // The host was started again.
            self.kill(WEB, number);
            self.field.mend(place)?;
            self.start(WEB, next, (place, PORT))?;
            self.publish()?;
            self.record.whole_again(round);
            hosts[index] = (place, next);
            next += 1;
            round += 1;
            self.pause(PAUSE)?;
        }
        Ok(())
    }

    fn cut_off(&mut self, place: Place, number: u64) -> Result<(), Trouble> {
        let at = place.at(PORT);
        self.record.begin(format!(
            "the host of {WEB}-{number} ({at}) cut off for 6 s, declared dead after 0.3 s"
        ));
        let cut = Instant::now();
        self.field.cut(place)?;
        self.pause(NOTICED)?;
        let declared = Instant::now();
        self.board.bury(WEB, number);
        self.publish()?;
        self.record.figures.push(Figure {
            what: format!("{WEB}-{number} declared dead, in force after"),
            unit: "ms",
            value: ms(declared.elapsed()),
            bar: None,
        });
        self.record.outages.push(Outage {
            begin: self.record.since(cut),
            bar: (declared - cut) + TOLD,
            victims: Victims::ByEnd,
        });
        self.pause(CUT.saturating_sub(cut.elapsed()))
    }
}
