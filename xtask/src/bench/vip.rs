//! `bench vip`: for how long nobody answers at a floating address, beside keepalived with the best settings of its
//! manual, in the same network namespaces, one after the other.
//!
//! A client sends a packet each millisecond; the silence is the longest time between two answers.

use super::dev;
use super::frame::{Extent, Run, median, short};
use anyhow::{Context as _, Result, bail};
use mainstay_testkit::floating::{Kind, Link, Plan};
use mainstay_testkit::{Spawned, TempDir, is_root, program, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tokio::time::sleep;

const CONFIG: &str = "bench/keepalived.conf";
const LIMIT: Duration = Duration::from_mins(1);
const OURS: [Kind; 2] = [Kind::Ours, Kind::Ours];
const RIVALS: [Kind; 2] = [Kind::Keepalived, Kind::Keepalived];
/// Milliseconds that a hand-over may take over the control, which is the same without one.
const HANDOVER_MS_MAX: f64 = 5.0;
const HOST_GONE_MS_MAX_10: f64 = 41.0;
const PROCESS_DEATH_MS_MAX: f64 = 30.0;
const DOUBLE_HOLDER_S_MAX: f64 = 4.0;
/// How long two holders of keepalived are watched; they stay for ever.
const DOUBLE_WATCHED: Duration = Duration::from_secs(8);
/// Programs that want all of every processor: so many that who has no real time waits longer for its turn than the
/// three adverts of 10 ms after which a peer takes over.
const BUSY: usize = 64;

/// What all measurements share.
struct Bench {
    mainstay: PathBuf,
    config: String,
}

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    if !is_root() {
        bail!("`bench vip` makes network namespaces: run it as root");
    }
    let bench = Bench {
        mainstay: dev::build(&["mainstay"])?,
        config: fs::read_to_string(CONFIG).with_context(|| format!("cannot read {CONFIG}"))?,
    };
    run.show_file(CONFIG)?;
    host_gone(run, &bench).await?;
    handover(run, &bench).await?;
    process_death(run, &bench).await?;
    double_holder(run, &bench).await?;
    false_takeovers(run, &bench).await
}

impl Bench {
    fn plan(&self, advert_ms: u64) -> Plan {
        Plan {
            advert: Duration::from_millis(advert_ms),
            keepalived: Some(self.config.clone()),
            ..Plan::default()
        }
    }

    /// The better one holds the address, and the other one has heard it for a while.
    async fn settled(&self, kinds: [Kind; 2], plan: &Plan) -> Link {
        let mut link = Link::new(&self.mainstay, kinds, plan);
        link.start(0);
        link.wait_holder(0, "the better one starts alone");
        link.start(1);
        if plan.gateway {
            link.wait_track(0, "works");
            link.wait_track(1, "works");
        }
        // Both are up, have heard each other, and have told everybody what they had to.
        sleep(Duration::from_secs(2) + plan.advert * 3).await;
        link.wait_holder(0, "nothing moved");
        link
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The holder's cable is pulled at the switch.
async fn host_gone(run: &mut Run, bench: &Bench) -> Result<()> {
    // The default of keepalived, for comparison: it takes long, so once is enough for a quick run.
    let intervals = [10, 100, 1000];
    for advert_ms in intervals {
        let rounds = match (run.extent, advert_ms) {
            (Extent::Quick, 1000) => 1,
            (extent, _) => extent.rounds(),
        };
        let (mut ours, mut rivals) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (kinds, times) in [(OURS, &mut ours), (RIVALS, &mut rivals)] {
                let link = bench.settled(kinds, &bench.plan(advert_ms)).await;
                let probe = link.probe();
                sleep(Duration::from_millis(300)).await;
                link.segment.cut("a");
                link.wait_answer(1, "the host is gone");
                sleep(Duration::from_millis(200)).await;
                times.push(ms(probe.end().silence));
            }
        }
        let (ours_ms, rival_ms) = (median(ours.clone()), median(rivals.clone()));
        run.say(format!(
            "host gone, adverts every {advert_ms} ms: {} ms, keepalived {} ms",
            short(ours_ms),
            short(rival_ms)
        ));
        run.raw(&format!("host_gone_ms_{advert_ms}"), json!(ours));
        run.raw(
            &format!("host_gone_ms_{advert_ms}_keepalived"),
            json!(rivals),
        );
        let ratio = format!("host_gone_ratio_{advert_ms}");
        match advert_ms {
            10 => {
                run.at_most(ratio, ours_ms / rival_ms, 1.0);
                run.at_most("host_gone_ms_10", ours_ms, HOST_GONE_MS_MAX_10);
            }
            100 => {
                run.at_most(ratio, ours_ms / rival_ms, 1.0);
                run.value("host_gone_ms_100", ours_ms);
            }
            _ => {
                run.value(ratio, ours_ms / rival_ms);
                run.value("host_gone_ms_1000", ours_ms);
            }
        }
        run.value(format!("host_gone_ms_{advert_ms}_keepalived"), rival_ms);
    }
    Ok(())
}

/// The address is moved on purpose; keepalived can only be stopped.
async fn handover(run: &mut Run, bench: &Bench) -> Result<()> {
    let (mut all, mut control, mut lost) = (Vec::new(), Vec::new(), 0);
    for advert_ms in [10, 100, 1000] {
        let (mut ours, mut rivals) = (Vec::new(), Vec::new());
        for _ in 0..run.extent.pick(5, 2) {
            for (kinds, times) in [(OURS, &mut ours), (RIVALS, &mut rivals)] {
                let link = bench.settled(kinds, &bench.plan(advert_ms)).await;
                control.push(undisturbed(&link).await);
                let probe = link.probe();
                sleep(Duration::from_millis(300)).await;
                if kinds == OURS {
                    let (code, said) = link.vip(0, &["move", "entry"]);
                    if code != Some(0) {
                        bail!("`mainstay vip move` failed: {said}");
                    }
                } else {
                    link.terminate(0);
                }
                link.wait_answer(1, "it was moved");
                sleep(Duration::from_millis(300)).await;
                let seen = probe.end();
                times.push(ms(seen.silence));
                if kinds == OURS {
                    lost += seen.sent - seen.answered;
                }
            }
        }
        run.say(format!(
            "planned, adverts every {advert_ms} ms: {} ms, keepalived {} ms",
            short(median(ours.clone())),
            short(median(rivals.clone()))
        ));
        run.raw(&format!("handover_ms_{advert_ms}"), json!(ours));
        run.raw(
            &format!("handover_ms_{advert_ms}_keepalived"),
            json!(rivals),
        );
        run.value(
            format!("handover_ms_{advert_ms}_keepalived"),
            median(rivals),
        );
        all.extend(ours);
    }
    // What the machine itself adds, in the same links and for as long, is not the hand-over's.
    let (all, control) = (median(all), median(control));
    run.value("handover_control_ms", control);
    run.at_most("handover_ms_p50", all, HANDOVER_MS_MAX + control);
    #[expect(clippy::cast_precision_loss, reason = "some at most")]
    run.at_most("handover_lost_packets", lost as f64, 0.0);
    Ok(())
}

/// The silence while nothing happens, for as long as a hand-over is watched.
async fn undisturbed(link: &Link) -> f64 {
    let probe = link.probe();
    sleep(Duration::from_millis(600)).await;
    ms(probe.end().silence)
}

/// The gateway is killed: from then until the first answer of the other machine.
async fn process_death(run: &mut Run, bench: &Bench) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..run.extent.rounds() {
        let plan = Plan {
            gateway: true,
            ..bench.plan(100)
        };
        let link = bench.settled(OURS, &plan).await;
        let probe = link.probe();
        sleep(Duration::from_millis(300)).await;
        let killed = Instant::now();
        link.signal(0, "gateway", Signal::KILL);
        link.wait_answer(1, "the gateway was killed");
        sleep(Duration::from_millis(50)).await;
        times.push(ms(probe.changed().saturating_duration_since(killed)));
    }
    run.raw("process_death_ms", json!(times));
    run.at_most("process_death_ms", median(times), PROCESS_DEATH_MS_MAX);
    Ok(())
}

/// All of a holder's processes are killed: how long the address is on both machines.
async fn double_holder(run: &mut Run, bench: &Bench) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..run.extent.rounds() {
        let mut link = bench.settled(OURS, &bench.plan(100)).await;
        link.kill(0);
        wait_until(LIMIT, "the other one has it", || taken(&link));
        times.push(link.wait_holder(1, "the kernel removed it").as_secs_f64());
    }
    run.raw("double_holder_s", json!(times));
    let worst = times.iter().copied().fold(0.0, f64::max);
    run.at_most("double_holder_s", worst, DOUBLE_HOLDER_S_MAX);
    // keepalived is the control: what has no lifetime stays.
    let mut link = bench.settled(RIVALS, &bench.plan(100)).await;
    link.kill(0);
    wait_until(LIMIT, "the other one has it", || taken(&link));
    let begun = Instant::now();
    while begun.elapsed() < DOUBLE_WATCHED && link.holders() == [true, true] {
        sleep(Duration::from_millis(100)).await;
    }
    run.red("double_holder_s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn taken(link: &Link) -> Result<(), String> {
    match link.holders() {
        [_, true] => Ok(()),
        holders => Err(format!("{holders:?}")),
    }
}

/// Every processor is busy, and nothing fails: how often the address moves all the same.
async fn false_takeovers(run: &mut Run, bench: &Bench) -> Result<()> {
    let lasts = Duration::from_secs(run.extent.pick(10, 5));
    let link = bench.settled(OURS, &bench.plan(10)).await;
    let before = link
        .took_over(0)
        .zip(link.took_over(1))
        .context("both run")?;
    busy(lasts).await;
    let after = link
        .took_over(0)
        .zip(link.took_over(1))
        .context("both run")?;
    let ours = after.0 - before.0 + after.1 - before.1;
    drop(link);
    #[expect(clippy::cast_precision_loss, reason = "some at most")]
    run.at_most("false_takeovers", ours as f64, 0.0);
    let with_real_time = rival_takeovers(bench, &bench.config, lasts).await;
    run.value("false_takeovers_keepalived", with_real_time);
    let usual = bench.config.replace("vrrp_rt_priority 50", "");
    run.red(
        "false_takeovers",
        rival_takeovers(bench, &usual, lasts).await,
    );
    Ok(())
}

async fn rival_takeovers(bench: &Bench, config: &str, lasts: Duration) -> f64 {
    let plan = Plan {
        keepalived: Some(config.to_owned()),
        ..bench.plan(10)
    };
    let link = bench.settled(RIVALS, &plan).await;
    let count = || {
        let entered = |at| link.said(at).matches("Entering MASTER STATE").count();
        entered(0) + entered(1)
    };
    let before = count();
    busy(lasts).await;
    u32::try_from(count() - before).map_or(f64::INFINITY, f64::from)
}

/// Keeps all processors busy for so long.
async fn busy(lasts: Duration) {
    let dir = TempDir::new("bench-vip-busy");
    let start = |number| {
        let mut shell = Command::new(program("sh"));
        shell.args(["-c", "while :; do :; done"]);
        Spawned::start(&dir, &format!("busy-{number}"), &mut shell)
    };
    let loops: Vec<Spawned> = (0..BUSY).map(start).collect();
    sleep(lasts).await;
    drop(loops);
}
