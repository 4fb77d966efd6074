//! One of three instances is struck under load: killed, cut off, or frozen; beside the same load without it.
//!
//! GETs may be sent twice, so none may fail and none may be slow. A POST that was under way to the struck instance at
//! that moment is lost, and only it: the gateway must say so and name the instance (`Failure::was_in_flight_on`). Every
//! other POST that fails counts, those among them that were sent there when the gateway had had time to notice.

use super::{SERVICE_TIME, blackhole::Blackhole};
use crate::bench::{
    dev::{self, Dev, Part},
    frame::{Extent, Run, median, short},
    haproxy::{Haproxy, Reload, Setup},
    load::{Seen, Shape},
    machine,
};
use anyhow::{Context as _, Result};
use mainstay_prove::load::{Connections, Report, Strike};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use tokio::time::{sleep, sleep_until};

const STOCK: &str = "bench/haproxy-stock.cfg";
const BEST: &str = "bench/haproxy-failure.cfg";
const OURS: &str = "mainstay";
const STOCK_NAME: &str = "haproxy stock";
const BEST_NAME: &str = "haproxy best";
/// GETs at 3,200 a second, and a tenth of that on top.
const RATE: u32 = 3520;
const GETS: &str = "10 GET /";
const POSTS: &str = "1 POST / {}";
/// After two failures or three a worker leaves an instance out, and POSTs are to be among those.
const RATE_UNSEEN: u32 = 640;
const FEW_GETS: &str = "1 GET /";
const MANY_POSTS: &str = "9 POST / {}";
const CLIENTS: usize = 64;
const MAX_MS: f64 = 300.0;
/// A machine that is slow without a fault may be this much slower with one.
const MAX_MS_OVER_CONTROL: f64 = 250.0;
/// How long a gateway may take to see that an instance neither answers nor goes away: the bar of the slowest request.
const NOTICED: Duration = Duration::from_millis(300);
/// How often it is looked whether a killed process is gone.
const LOOK: Duration = Duration::from_millis(1);

/// What is done to the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; it is back two seconds later (ours: when the agent has started it again).
    Kill,
    /// SIGKILL before the load begins, while its agent is frozen: nothing is in flight, nobody tells the gateway, and
    /// whatever fails fails because of it. Only ours: a rival has nobody who tells it.
    UnseenDeath,
    /// Packets to and from it vanish for three seconds, as when its host dies.
    Blackhole,
    /// SIGSTOP for three seconds: the kernel still takes connections and requests for it.
    Freeze,
}

/// When what happens, counted from the load's start.
#[derive(Clone, Copy)]
struct Timing {
    strike: Duration,
    lift: Duration,
    end: Duration,
    control: Duration,
}

/// One of those that are compared.
struct Side {
    name: &'static str,
    proxy: Proxy,
}

enum Proxy {
    Ours(Dev),
    Theirs(Haproxy),
}

/// An instance that is struck now.
struct Struck {
    number: usize,
    instance: String,
    pid: Pid,
    begin: Instant,
    end: Instant,
    hole: Option<Blackhole>,
}

struct Round {
    side: &'static str,
    control: Seen,
    gets: Seen,
    posts: Seen,
    posts_in_flight: u64,
}

/// What all faults together show of POSTs.
#[derive(Default)]
pub(super) struct Posts {
    /// At worst, with everything on and with a feature off.
    not_in_flight: u64,
    not_in_flight_red: u64,
}

pub(super) fn show_configurations(run: &Run) -> Result<()> {
    run.show_file(STOCK)?;
    run.show_file(BEST)
}

pub(super) async fn run(
    run: &mut Run,
    mainstay: &Path,
    fault: Fault,
    posts: &mut Posts,
) -> Result<()> {
    let clients = NonZeroUsize::new(CLIENTS).context("no clients")?;
    let shape = fault.shape(clients)?;
    let mut sides = start(mainstay, fault).await?;
    let mut rounds = Vec::new();
    for number in 0..run.extent.rounds() {
        // In a quick run the rivals are only shown to work.
        let sides = match (run.extent, number) {
            (Extent::Quick, 1..) => &mut sides[..1],
            (Extent::Full | Extent::Quick, _) => &mut sides[..],
        };
        for side in sides {
            let round = side
                .round(&shape, fault, fault.timing(run.extent), number)
                .await?;
            run.say(format!("{} {}: {}", fault.name(), number + 1, round.line()));
            rounds.push(round);
        }
    }
    drop(sides);
    let red = match fault.seam() {
        seam if knows(mainstay, seam)? => {
            let mut side = ours(mainstay, &["--unsafe-gateway-seams", seam]).await?;
            let red = side
                .round(&shape, fault, fault.timing(run.extent), 0)
                .await?;
            run.say(format!("{} with {seam}: {}", fault.name(), red.line()));
            Some(red)
        }
        _ => None,
    };
    conclude(run, fault, &rounds, red.as_ref());
    posts.add(&rounds, red.as_ref());
    Ok(())
}

async fn start(mainstay: &Path, fault: Fault) -> Result<Vec<Side>> {
    if fault == Fault::UnseenDeath {
        return Ok(vec![ours(mainstay, &[]).await?]);
    }
    let haproxy = |name, config| -> Result<Side> {
        let (threads, reload) = (machine::cores(), Reload::Never);
        let proxy = Proxy::Theirs(Haproxy::start(Setup {
            config,
            threads,
            delay: SERVICE_TIME,
            reload,
        })?);
        Ok(Side { name, proxy })
    };
    Ok(vec![
        ours(mainstay, &[]).await?,
        haproxy(STOCK_NAME, STOCK)?,
        haproxy(BEST_NAME, BEST)?,
    ])
}

async fn ours(mainstay: &Path, options: &[&str]) -> Result<Side> {
    let dev = Dev::start(mainstay, &dev::service_file(3, SERVICE_TIME, 1)?, options)?;
    dev.wait_steady().await;
    let proxy = Proxy::Ours(dev);
    Ok(Side { name: OURS, proxy })
}

/// Whether this gateway has what the seam switches off.
fn knows(mainstay: &Path, seam: &str) -> Result<bool> {
    let mut help = Command::new(mainstay);
    help.args(["dev", "--unsafe-gateway-seams", seam, "--help"]);
    let output = help.output().context("cannot start mainstay")?;
    Ok(output.status.success())
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::UnseenDeath => "unseen_death",
            Self::Blackhole => "blackhole",
            Self::Freeze => "freeze",
        }
    }

    /// Without what the gateway cannot stand this fault.
    fn seam(self) -> &'static str {
        match self {
            Self::Kill | Self::UnseenDeath => "retries=off",
            Self::Blackhole | Self::Freeze => "hedging=off,patience=endless",
        }
    }

    fn shape(self, clients: NonZeroUsize) -> Result<Shape> {
        let (gets, posts, rate) = match self {
            Self::Kill | Self::Blackhole | Self::Freeze => (GETS, POSTS, RATE),
            Self::UnseenDeath => (FEW_GETS, MANY_POSTS, RATE_UNSEEN),
        };
        let groups: [(&str, &[&str]); 2] = [("gets", &[gets]), ("posts", &[posts])];
        Shape::grouped(&groups, rate, Connections::Kept(clients))
    }

    fn timing(self, extent: Extent) -> Timing {
        let of = |[strike, lift, end, control]: [u64; 4]| Timing {
            strike: Duration::from_millis(strike),
            lift: Duration::from_millis(lift),
            end: Duration::from_millis(end),
            control: Duration::from_millis(control),
        };
        match (self, extent) {
            (Self::UnseenDeath, _) => of([0, 2000, 2000, 1000]),
            (Self::Kill, Extent::Full) => of([2000, 4000, 6000, 3000]),
            (Self::Kill, Extent::Quick) => of([1000, 3000, 4000, 1000]),
            (Self::Blackhole | Self::Freeze, Extent::Full) => of([1500, 4500, 7000, 3000]),
            (Self::Blackhole | Self::Freeze, Extent::Quick) => of([1000, 4000, 5000, 1000]),
        }
    }
}

impl Side {
    fn entry(&self) -> SocketAddr {
        match &self.proxy {
            Proxy::Ours(dev) => dev.entry(),
            Proxy::Theirs(haproxy) => haproxy.entry(),
        }
    }

    async fn round(
        &mut self,
        shape: &Shape,
        fault: Fault,
        timing: Timing,
        number: usize,
    ) -> Result<Round> {
        let control = shape.send(self.entry(), timing.control).await?;
        // Another one each time: an instance that is killed again and again is rightly taken for a broken one.
        let instance = number % 3;
        let before = match fault {
            Fault::UnseenDeath => Some(self.strike(fault, instance).await?),
            Fault::Kill | Fault::Blackhole | Fault::Freeze => None,
        };
        let sending = shape.start_for(self.entry(), timing.end)?;
        let started = sending.started();
        until(started + timing.strike).await;
        let struck = match before {
            Some(struck) => struck,
            None => self.strike(fault, instance).await?,
        };
        let strike = Strike {
            instance: struck.instance.clone(),
            begin: struck.begin.saturating_duration_since(started),
            end: struck.end.saturating_duration_since(started),
        };
        until(started + timing.lift).await;
        self.lift(fault, struck)?;
        let report = sending.report().await?;
        if let Proxy::Ours(dev) = &self.proxy {
            dev.wait_steady().await;
        }
        Ok(Round::of(self.name, control, &report, &strike))
    }

    async fn strike(&self, fault: Fault, number: usize) -> Result<Struck> {
        let (instance, pid, address) = match &self.proxy {
            Proxy::Ours(dev) => dev.instance(number).await?,
            Proxy::Theirs(haproxy) => {
                let address = haproxy.instance_address(number);
                (String::new(), haproxy.instance(number), address)
            }
        };
        let begin = Instant::now();
        let mut struck = Struck {
            number,
            instance,
            pid,
            begin,
            end: begin + NOTICED,
            hole: None,
        };
        match fault {
            Fault::Kill | Fault::UnseenDeath => {
                if fault == Fault::UnseenDeath {
                    self.signal_agent(Signal::STOP)?;
                }
                kill_process(pid, Signal::KILL).context("cannot kill an instance")?;
                while !is_gone(pid) {
                    sleep(LOOK).await;
                }
                struck.end = Instant::now();
            }
            Fault::Blackhole => struck.hole = Some(Blackhole::dig(address.port())?),
            Fault::Freeze => kill_process(pid, Signal::STOP).context("cannot stop an instance")?,
        }
        Ok(struck)
    }

    /// A HAProxy has none.
    fn signal_agent(&self, signal: Signal) -> Result<()> {
        match &self.proxy {
            Proxy::Ours(dev) => {
                let agent = dev.process(Part::Agent)?;
                kill_process(agent, signal).context("cannot signal the agent")
            }
            Proxy::Theirs(_) => Ok(()),
        }
    }

    fn lift(&mut self, fault: Fault, struck: Struck) -> Result<()> {
        match (fault, &mut self.proxy) {
            // The agent has started it again long ago.
            (Fault::Kill, Proxy::Ours(_)) => Ok(()),
            (Fault::UnseenDeath, _) => self.signal_agent(Signal::CONT),
            (Fault::Kill, Proxy::Theirs(haproxy)) => haproxy.bring_back(struck.number),
            (Fault::Blackhole, _) => {
                drop(struck.hole);
                Ok(())
            }
            (Fault::Freeze, _) => match kill_process(struck.pid, Signal::CONT) {
                // Its agent may have ended it meanwhile.
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error).context("cannot let an instance go on"),
            },
        }
    }
}

/// Whether a process has ended, reaped or not.
fn is_gone(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit(')').next().unwrap_or_default();
    state.trim_start().starts_with(['Z', 'X'])
}

async fn until(instant: Instant) {
    sleep_until(instant.into()).await;
}

impl Round {
    fn of(side: &'static str, control: Seen, report: &Report, strike: &Strike) -> Self {
        let lost = report
            .targets
            .iter()
            .flat_map(|target| &target.lost_in_flight);
        let in_flight = lost.filter(|failure| failure.was_in_flight_on(strike));
        Self {
            side,
            control,
            gets: Seen::of_group(report, "gets"),
            posts: Seen::of_group(report, "posts"),
            posts_in_flight: in_flight.count() as u64,
        }
    }

    fn posts_not_in_flight(&self) -> u64 {
        self.posts.failed - self.posts_in_flight
    }

    fn line(&self) -> String {
        let Self {
            side,
            control,
            gets,
            posts,
            posts_in_flight,
        } = self;
        format!(
            "{side:13}  {} of {} GETs failed, slowest {:.0} ms (undisturbed: {} failed, {:.0} ms); {} of {} POSTs, \
             {posts_in_flight} of them in flight  {} | {}",
            gets.failed,
            gets.planned,
            gets.max_ms,
            control.failed,
            control.max_ms,
            posts.failed,
            posts.planned,
            gets.kinds(),
            posts.kinds(),
        )
    }

    fn raw(&self) -> Value {
        json!({
            "side": self.side,
            "control": self.control.raw(),
            "gets": self.gets.raw(),
            "posts": self.posts.raw(),
            "posts_in_flight": self.posts_in_flight,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
fn conclude(run: &mut Run, fault: Fault, rounds: &[Round], red: Option<&Round>) {
    let side = |side: &'static str| rounds.iter().filter(move |round| round.side == side);
    // None may fail in any round; of the slowest the median counts, since a machine that does other things has pauses.
    let worst = |name, of: fn(&Round) -> u64| side(name).map(of).max().unwrap_or(u64::MAX) as f64;
    let failed = |name| worst(name, |round| round.gets.failed);
    let posts = |name| worst(name, |round| round.posts.failed);
    let slowest = |name| median(side(name).map(|round| round.gets.max_ms));
    let control = |name| median(side(name).map(|round| round.control.max_ms));
    let titles = [
        "median of rounds",
        "GETs failed at worst",
        "slowest ms",
        "undisturbed ms",
        "POSTs failed at worst",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let present = |name: &&'static str| side(name).next().is_some();
    for name in [OURS, STOCK_NAME, BEST_NAME].into_iter().filter(present) {
        let cells = [failed(name), slowest(name), control(name), posts(name)].map(short);
        rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    run.say("");
    run.table(&rows);
    run.say("");
    let (name, bar) = (
        fault.name(),
        MAX_MS.max(control(OURS) + MAX_MS_OVER_CONTROL),
    );
    run.at_most(format!("{name}_failed_get"), failed(OURS), 0.0);
    run.at_most(format!("{name}_max_ms"), slowest(OURS), bar);
    run.value(format!("{name}_max_ms_control"), control(OURS));
    for (side, of) in [("stock", STOCK_NAME), ("best", BEST_NAME)] {
        if !present(&of) {
            continue;
        }
        run.value(format!("{name}_failed_get_haproxy_{side}"), failed(of));
        run.value(format!("{name}_max_ms_haproxy_{side}"), slowest(of));
        run.value(format!("{name}_failed_post_haproxy_{side}"), posts(of));
    }
    for round in side(OURS) {
        if round.control.failed > 0 || !round.control.counts() || !round.gets.counts() {
            run.miss(format!("a round does not count: {}", round.line()));
        }
    }
    match red {
        Some(red) => {
            run.red(format!("{name}_failed_get"), red.gets.failed as f64);
            run.red(format!("{name}_max_ms"), red.gets.max_ms);
            let holds = red.gets.failed == 0 && red.posts_not_in_flight() == 0;
            if holds && red.gets.max_ms <= bar {
                run.miss(format!(
                    "`{name}` holds with a feature off: the check shows nothing"
                ));
            }
        }
        None => run.miss(format!(
            "`{name}` has no red run: the gateway does not know `{}`",
            fault.seam()
        )),
    }
    let raw = rounds.iter().chain(red).map(Round::raw).collect();
    run.raw(name, raw);
}

impl Posts {
    fn add(&mut self, rounds: &[Round], red: Option<&Round>) {
        let ours = rounds.iter().filter(|round| round.side == OURS);
        let worst = ours.map(Round::posts_not_in_flight).max().unwrap_or(0);
        self.not_in_flight = self.not_in_flight.max(worst);
        let red = red.map_or(0, Round::posts_not_in_flight);
        self.not_in_flight_red = self.not_in_flight_red.max(red);
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    pub(super) fn conclude(&self, run: &mut Run) {
        let (seen, red) = (self.not_in_flight as f64, self.not_in_flight_red as f64);
        run.at_most("post_failed_not_in_flight", seen, 0.0);
        run.red("post_failed_not_in_flight", red);
        if red < 1.0 {
            run.miss("no POST fails with a feature off: `post_failed_not_in_flight` shows nothing");
        }
    }
}
