//! `bench broker`: ours beside RabbitMQ, the same lean generator for both, interleaved: persistent messages of 1 KiB in a
//! durable queue, confirmed and consumed. Then what each costs in processor time, memory and syncs, how fast it starts,
//! and what SIGKILL under load costs ours.
//!
//! RabbitMQ runs with its defaults, on the same disk, as its package has it.
//!
//! Start reading at [`run`]; `broker/wire.rs` is the client.

mod lapin_load;
mod ledger;
mod load;
mod sides;

use self::{
    ledger::Ledger,
    load::{Load, Measured},
    sides::{Ours, Side, SyncCount},
};
use super::{
    frame::{Run, median, short},
    machine,
};
use anyhow::{Context as _, Result, bail};
use mainstay_testkit::TempDir;
use rustix::process::Pid;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{task::spawn_blocking, time::sleep};

const RATE_RATIO_MIN: f64 = 2.0;
const P99_RATIO_MAX: f64 = 0.5;
const CPU_RATIO_MAX: f64 = 0.33;
const RSS_IDLE_RATIO_MAX: f64 = 0.2;
const RSS_GROWTH_MIB_MAX: f64 = 32.0;
const START_EMPTY_MS_MAX: f64 = 300.0;
const START_100K_MS_MAX: f64 = 1000.0;
/// What is queued for memory and start.
const QUEUED: u64 = 100_000;
/// A process that was just started is left alone for this long before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a broker lives in a round of SIGKILL.
const LIFE_MS: std::ops::Range<u64> = 50..400;
/// And how long when it is killed again while it reads its log.
const RECOVERY_MS: std::ops::Range<u64> = 0..30;

/// The loads that are compared, by the keys of their bars.
const LOADS: [(&str, usize, usize); 3] =
    [("p1_w1", 1, 1), ("p1_w100", 1, 100), ("p8_w100", 8, 100)];

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    let program = sides::build()?;
    let dir = TempDir::new("bench-rabbitmq");
    let (rabbitmq, rabbitmq_start) = Side::rabbitmq(&dir).await?;
    let (ours, _) = Side::ours(&program).await?;
    sleep(SETTLE).await;
    let idle = (pss_mib(&ours)?, pss_mib(&rabbitmq)?);
    run.value("rss_idle_mib", idle.0);
    run.value("rabbitmq_rss_idle_mib", idle.1);
    run.at_most("rss_idle_ratio", idle.0 / idle.1, RSS_IDLE_RATIO_MAX);
    run.value("rabbitmq_start_ms_empty", millis(rabbitmq_start));
    rates(run, &ours, &rabbitmq).await?;
    lapin(run, &ours, &rabbitmq).await?;
    for (name, side) in [("", &ours), ("rabbitmq_", &rabbitmq)] {
        syncs(run, name, side, &dir).await?;
    }
    memory(run, &rabbitmq, "rabbitmq_").await?;
    drop((ours, rabbitmq));
    starts(run, &program).await?;
    kills(run, &program).await
}

/// One load against one broker.
#[derive(Debug, Clone)]
struct Round {
    measured: Measured,
    /// The broker's processor seconds per 100,000 messages.
    cpu_s: f64,
}

async fn round(side: &Side, load: Load) -> Result<Round> {
    let (address, pid) = (side.address(), side.pid()?);
    let before = machine::cpu_time(pid)?;
    let measured = spawn_blocking(move || load::run(address, "bench", load)).await??;
    let spent = machine::cpu_time(pid)?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    let cpu_s = spent.as_secs_f64() * 100_000.0 / measured.messages as f64;
    Ok(Round { measured, cpu_s })
}

async fn rates(run: &mut Run, ours: &Side, rabbitmq: &Side) -> Result<()> {
    let lasts = Duration::from_secs(run.extent.pick(4, 2));
    for (name, producers, window) in LOADS {
        let load = Load {
            producers,
            window,
            lasts,
        };
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for number in 1..=run.extent.rounds() {
            // Who is second may find a warmer machine.
            if number % 2 == 0 {
                theirs.push(round(rabbitmq, load).await?);
                mine.push(round(ours, load).await?);
            } else {
                mine.push(round(ours, load).await?);
                theirs.push(round(rabbitmq, load).await?);
            }
            let [a, b] = [&mine, &theirs].map(|rounds| rounds[number - 1].clone());
            run.say(format!(
                "{name} round {number}: {} and {} messages/s, p99 {} and {} ms, {} and {} CPU s per 100,000",
                short(a.measured.per_s),
                short(b.measured.per_s),
                short(a.measured.p99_ms),
                short(b.measured.p99_ms),
                short(a.cpu_s),
                short(b.cpu_s),
            ));
        }
        judge(run, name, &mine, &theirs);
    }
    Ok(())
}

fn judge(run: &mut Run, name: &str, mine: &[Round], theirs: &[Round]) {
    let of = |rounds: &[Round], what: fn(&Round) -> f64| median(rounds.iter().map(what));
    let both = |what: fn(&Round) -> f64| (of(mine, what), of(theirs, what));
    let (rate, their_rate) = both(|round| round.measured.per_s);
    let (p99, their_p99) = both(|round| round.measured.p99_ms);
    let (cpu, their_cpu) = both(|round| round.cpu_s);
    run.value(format!("rate_{name}"), rate);
    run.value(format!("rabbitmq_rate_{name}"), their_rate);
    run.at_least(
        format!("rate_ratio_{name}"),
        rate / their_rate,
        RATE_RATIO_MIN,
    );
    run.value(format!("p99_ms_{name}"), p99);
    run.value(format!("rabbitmq_p99_ms_{name}"), their_p99);
    match name {
        "p8_w100" => run.at_most("p99_ratio_p8_w100", p99 / their_p99, P99_RATIO_MAX),
        "p1_w100" => {
            run.value("cpu_s_per_100k", cpu);
            run.value("rabbitmq_cpu_s_per_100k", their_cpu);
            run.at_most("cpu_ratio", cpu / their_cpu, CPU_RATIO_MAX);
        }
        _ => {}
    }
    run.raw(name, json!({ "ours": raw(mine), "rabbitmq": raw(theirs) }));
}

fn raw(rounds: &[Round]) -> Value {
    let one = |round: &Round| {
        let Round { measured, cpu_s } = round;
        json!({
            "messages": measured.messages,
            "per_s": measured.per_s,
            "p50_ms": measured.p50_ms,
            "p99_ms": measured.p99_ms,
            "cpu_s_per_100k": cpu_s,
        })
    };
    rounds.iter().map(one).collect()
}

async fn lapin(run: &mut Run, ours: &Side, rabbitmq: &Side) -> Result<()> {
    let lasts = Duration::from_secs(run.extent.pick(4, 2));
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..run.extent.rounds() {
        mine.push(lapin_load::run(ours.address(), "bench", lasts).await?);
        theirs.push(lapin_load::run(rabbitmq.address(), "bench", lasts).await?);
    }
    let (rate, their_rate) = (median(mine), median(theirs));
    run.say(format!(
        "through lapin: {} and {} messages/s",
        short(rate),
        short(their_rate)
    ));
    run.value("lapin_rate_p1_w100", rate);
    run.value("rabbitmq_lapin_rate_p1_w100", their_rate);
    run.value("lapin_rate_ratio_p1_w100", rate / their_rate);
    Ok(())
}

/// Syncs per thousand confirms; a broker that needs none with one publish under way does not wait for its disk.
async fn syncs(run: &mut Run, name: &str, side: &Side, dir: &TempDir) -> Result<()> {
    let lasts = Duration::from_secs(run.extent.pick(3, 1));
    for window in [1, 100] {
        let count = SyncCount::begin(dir, side.pid()?).await?;
        let load = Load {
            producers: 1,
            window,
            lasts,
        };
        let confirmed = round(side, load).await?.measured.messages;
        #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
        let per_1000 = count.end().await? as f64 * 1000.0 / confirmed as f64;
        run.value(format!("{name}syncs_per_1000_w{window}"), per_1000);
        if window == 1 && per_1000 < 990.0 {
            run.miss(format!(
                "{name}: 1,000 confirms one by one came with {} syncs",
                short(per_1000)
            ));
        }
    }
    Ok(())
}

/// How memory grows with what is queued.
async fn memory(run: &mut Run, side: &Side, name: &str) -> Result<f64> {
    let before = pss_mib(side)?;
    fill(side.address()).await?;
    sleep(SETTLE).await;
    let growth = pss_mib(side)? - before;
    run.value(format!("{name}rss_growth_{QUEUED}_mib"), growth);
    Ok(growth)
}

async fn fill(address: SocketAddr) -> Result<()> {
    spawn_blocking(move || load::fill(address, "full", QUEUED)).await?
}

/// Starts on an empty directory and on one with a full queue.
async fn starts(run: &mut Run, program: &Path) -> Result<()> {
    let (mut empty, mut full, mut growths) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=run.extent.rounds() {
        let (side, took) = Side::ours(program).await?;
        empty.push(millis(took));
        sleep(SETTLE).await;
        growths.push(memory(run, &side, &format!("round_{number}_")).await?);
        let Side::Ours(mut ours) = side else {
            bail!("it was ours");
        };
        ours.kill()?;
        full.push(millis(ours.start().await?));
        run.say(format!(
            "round {number}: serves after {} ms, with {QUEUED} messages after {} ms; they took {} MiB",
            short(empty[number - 1]),
            short(full[number - 1]),
            short(growths[number - 1])
        ));
    }
    run.raw(
        "starts",
        json!({ "empty_ms": empty, "full_ms": full, "growth_mib": growths }),
    );
    run.at_most("rss_growth_100k_mib", median(growths), RSS_GROWTH_MIB_MAX);
    run.at_most("start_ms_empty", median(empty), START_EMPTY_MS_MAX);
    run.at_most("start_ms_100k", median(full), START_100K_MS_MAX);
    Ok(())
}

/// SIGKILL under load again and again on one directory; in every third round also while it reads its log.
async fn kills(run: &mut Run, program: &Path) -> Result<()> {
    let rounds = run.extent.pick(100, 10);
    let (side, _) = Side::ours(program).await?;
    let Side::Ours(mut ours) = side else {
        bail!("it was ours");
    };
    let mut ledger = Ledger::default();
    let mut restarts = Vec::new();
    for number in 1..=rounds {
        ledger = kill_once(&mut ours, ledger, number).await?;
        let took = ours.start().await?;
        restarts.push(millis(took));
        let address = ours.address();
        ledger = spawn_blocking(move || ledger.judge(address).map(|()| ledger)).await??;
    }
    run.say(format!(
        "{rounds} kills: {} confirmed, {} lost, {} came again after their acknowledgement, {} out of order; \
         serves again after {} ms",
        ledger.confirmed,
        ledger.lost,
        ledger.redelivered_after_ack,
        ledger.out_of_order,
        short(median(restarts.iter().copied()))
    ));
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    let counts = [
        ledger.confirmed,
        ledger.lost,
        ledger.redelivered_after_ack,
        ledger.out_of_order,
    ]
    .map(|count| count as f64);
    let [confirmed, lost, again, disorder] = counts;
    run.value("kill_rounds", f64::from(rounds));
    run.at_least("kill_confirmed", confirmed, f64::from(rounds));
    run.at_most("confirmed_lost", lost, 0.0);
    run.at_most("acked_redelivered", again, 0.0);
    run.at_most("order_broken", disorder, 0.0);
    run.raw("restart_ms", json!(restarts));
    run.value(
        "restart_ms_max",
        restarts.iter().copied().fold(0.0, f64::max),
    );
    Ok(())
}

async fn kill_once(ours: &mut Ours, mut ledger: Ledger, number: u32) -> Result<Ledger> {
    let address = ours.address();
    let work = spawn_blocking(move || ledger.work_until_killed(address).map(|()| ledger));
    sleep(Duration::from_millis(fastrand::u64(LIFE_MS))).await;
    ours.kill()?;
    ledger = work.await??;
    if number.is_multiple_of(3) {
        ours.spawn();
        sleep(Duration::from_millis(fastrand::u64(RECOVERY_MS))).await;
        ours.kill().context("in recovery")?;
    }
    Ok(ledger)
}

fn pss_mib(side: &Side) -> Result<f64> {
    let pid: Pid = side.pid()?;
    #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
    Ok(machine::pss_kib(pid)? as f64 / 1024.0)
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
