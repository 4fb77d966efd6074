//! What happens on this node beside its instances, for the reports: what this agent notes itself, and what the holder of
//! the floating addresses has written down. Both stand in files, so that an event is lost neither by the end of a process
//! nor while the control centre is away.
//!
//! ```text
//!   forwarding ── mpsc Noted, 64 ──> run ── watch [Happenings] ──> node::Node
//!                                     └─ looks at the record of the other twice a second
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_kernel::notebook::{self, Notebook};
use mainstay_model::happening::{Line, REPORTED_MAX, Source};
use mainstay_model::{Happened, Happening, Happenings};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two looks at what others write.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Happenings on their way to the file. What notes them comes by some times a minute; full means that the disk hangs, and
/// what does not fit is dropped: it is in the log.
const NOTED: usize = 64;

/// Where something is noted. By itself nobody writes anything down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diary(Option<mpsc::Sender<Line>>);

impl Diary {
    /// Takes note; nobody waits.
    pub(crate) fn note(&self, what: Happening) {
        let Some(sender) = &self.0 else {
            return;
        };
        let at = crate::now();
        if sender.try_send(Line { at, what }).is_err() {
            tracing::warn!("what happened cannot be noted: too much waits to be written down");
        }
    }
}

/// The way from those who note to [`run`].
pub(crate) fn diary() -> (Diary, Noted) {
    let (sender, receiver) = mpsc::channel(NOTED);
    (Diary(Some(sender)), Noted(receiver))
}

/// What was noted and is not written down yet.
#[derive(Debug)]
pub(crate) struct Noted(mpsc::Receiver<Line>);

/// What this agent, or an earlier one on this state directory, has written down of itself, the latest last.
pub(crate) fn own(state: &Path) -> Vec<Happening> {
    let pages = notebook::read(&state.join(Source::Agent.record()))
        .ok()
        .flatten();
    let lines = pages.map(|pages| pages.lines).unwrap_or_default();
    let read = |(_, text): &(u64, String)| serde_json::from_str::<Line>(text).ok();
    lines
        .iter()
        .filter_map(read)
        .map(|line| line.what)
        .collect()
}

/// Writes down and reads, until `stop`.
pub(crate) async fn run(
    state: PathBuf,
    mut noted: Noted,
    reported: watch::Sender<Vec<Happenings>>,
    stop: CancellationToken,
) {
    let mut records = Records::new(state);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut lines = Vec::new();
        tokio::select! {
            () = stop.cancelled() => {
                // What was noted last is written down; nobody is told any more.
                while let Ok(line) = noted.0.try_recv() {
                    lines.push(line);
                }
                spawn_blocking(move || records.turn(&lines)).await.ok();
                return;
            }
            Some(line) = noted.0.recv() => lines.push(line),
            _ = looks.tick() => {}
        }
        while let Ok(line) = noted.0.try_recv() {
            lines.push(line);
        }
        let turn = spawn_blocking(move || {
            let news = records.turn(&lines);
            (records, news)
        });
        let Ok((back, news)) = turn.await else {
            tracing::error!("keeping what happened panicked; events of this node are missing");
            return;
        };
        records = back;
        if let Some(news) = news {
            reported.send_replace(news);
        }
    }
}

/// The files.
struct Records {
    own: Notebook,
    of_vip: PathBuf,
    /// Length and time of change of the other's file, as it was read last.
    seen: Option<(u64, i64, i64)>,
    vips: Option<Happenings>,
    is_new: bool,
}

impl Records {
    fn new(state: PathBuf) -> Self {
        Self {
            own: Notebook::open(&state.join(Source::Agent.record()), crate::now().0),
            of_vip: state.join(Source::Vip.record()),
            seen: None,
            vips: None,
            is_new: true,
        }
    }

    /// Writes down, and looks; what is to be reported, if that is another thing than before.
    fn turn(&mut self, lines: &[Line]) -> Option<Vec<Happenings>> {
        for line in lines {
            let written = serde_json::to_string(line)
                .map_err(io::Error::other)
                .and_then(|text| self.own.write(&text));
            match written {
                Ok(_) => self.is_new = true,
                Err(error) => tracing::warn!(%error, "cannot write down what happened"),
            }
        }
        if let Err(error) = self.look() {
            tracing::warn!(%error, "cannot read what happened to floating addresses");
        }
        std::mem::take(&mut self.is_new).then(|| {
            let own = self.own.lines();
            let own = of(Source::Agent, self.own.since(), own);
            own.into_iter().chain(self.vips.clone()).collect()
        })
    }

    fn look(&mut self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let seen = match self.of_vip.metadata() {
            Ok(file) => Some((file.len(), file.mtime(), file.mtime_nsec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if seen == self.seen {
            return Ok(());
        }
        self.seen = seen;
        let pages = notebook::read(&self.of_vip)?;
        self.vips = pages.and_then(|pages| {
            let lines = pages.lines.iter();
            let lines = lines.map(|(number, text)| (*number, text.as_str()));
            of(Source::Vip, pages.since, lines)
        });
        self.is_new = true;
        Ok(())
    }
}

/// The latest of what can be read: a line of another version of ours is left out, and counted by whoever misses it.
fn of<'a>(
    source: Source,
    since: u64,
    lines: impl DoubleEndedIterator<Item = (u64, &'a str)>,
) -> Option<Happenings> {
    let read = lines.rev().take(REPORTED_MAX).filter_map(|(number, text)| {
        let Line { at, what } = serde_json::from_str(text).ok()?;
        Some(Happened { number, at, what })
    });
    let mut latest: Vec<Happened> = read.collect();
    latest.reverse();
    (!latest.is_empty()).then_some(Happenings {
        source,
        since,
        latest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::Timestamp;
    use mainstay_testkit::TempDir;

    fn relaxed(entries: u64) -> Happening {
        Happening::ConnectionsRelaxed {
            entries,
            entries_max: 100,
        }
    }

    fn line(entries: u64) -> Line {
        Line {
            at: Timestamp(entries),
            what: relaxed(entries),
        }
    }

    fn numbers(happenings: &Happenings) -> Vec<u64> {
        happenings.latest.iter().map(|one| one.number).collect()
    }

    #[test]
    fn what_is_noted_is_reported_by_the_next_agent_too_with_what_others_wrote() {
        let state = TempDir::new("agent-happened");
        let mut first = Records::new(state.path().to_owned());
        assert_eq!(first.turn(&[]), Some(Vec::new()));
        assert_eq!(first.turn(&[]), None, "nothing is new");
        let told = first.turn(&[line(1), line(2)]).unwrap();
        assert_eq!(numbers(&told[0]), [1, 2]);
        drop(first);
        assert_eq!(own(state.path()), [relaxed(1), relaxed(2)]);
        let mut next = Records::new(state.path().to_owned());
        assert_eq!(next.turn(&[]).unwrap(), told);
        let mut vip = Notebook::open(&state.path().join(Source::Vip.record()), 5);
        vip.write(&serde_json::to_string(&line(7)).unwrap())
            .unwrap();
        vip.write("of another version").unwrap();
        vip.write(&serde_json::to_string(&line(8)).unwrap())
            .unwrap();
        let both = next.turn(&[]).unwrap();
        assert_eq!((both[1].source, both[1].since), (Source::Vip, 5));
        assert_eq!(numbers(&both[1]), [1, 3]);
        assert_eq!(next.turn(&[]), None);
    }

    #[test]
    fn a_report_has_the_latest_and_no_more_than_there_may_be() {
        let state = TempDir::new("agent-happened-much");
        let mut records = Records::new(state.path().to_owned());
        let many: Vec<Line> = (0..100).map(line).collect();
        let told = records.turn(&many).unwrap();
        let numbers = numbers(&told[0]);
        assert_eq!((numbers.len(), numbers.last()), (REPORTED_MAX, Some(&100)));
    }
}
