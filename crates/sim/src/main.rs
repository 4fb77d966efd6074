//! Runs the simulation; `cargo xtask sim` builds this in release and calls it.
#![allow(
    clippy::cast_precision_loss,
    reason = "rates are printed with two digits"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_sim::{
    Campaign, Conditions, Failure, Progress, Recovery, Tally, Trace, keep_panics, play, recover,
    run,
};
use serde_json::{Value, json};

/// What is asked for; the words are those of `cargo xtask sim`, which checks them.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that people type"
)]
struct Arguments {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    threads: usize,
    trace: bool,
    json: bool,
    restore: bool,
    entry: bool,
}

/// Seeds of a run without a number.
const SEEDS: u64 = 500;
/// The last lines of a trace are enough to see what broke a promise.
const LINES: usize = 60;
/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(5);
/// What `restore` measures: a thousand instances, as a node may hold at most a few.
const RESTORED: (u32, u32) = (20, 50);
/// A restart may take so long; more would be felt as a control centre that hangs.
const RESTORE_BAR_MS: f64 = 1000.0;
const RESTORE_ROUNDS: usize = 7;

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("error: {what}; call `cargo xtask sim --help`");
            return ExitCode::from(2);
        }
    };
    keep_panics();
    let ok = match arguments.seed {
        _ if arguments.restore => measure_restore(&arguments),
        seed if arguments.entry => play_entry(seed, &arguments),
        Some(seed) => replay(seed, &arguments),
        None => campaign(&arguments),
    };
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seeds: SEEDS,
        from: 0,
        seed: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        trace: false,
        json: false,
        restore: false,
        entry: false,
    };
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or(format!("`{word}` needs a number"))?;
            let parsed = text.parse::<u64>();
            parsed.map_err(|_| format!("`{text}` after `{word}` is no number"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--seed" => arguments.seed = Some(number()?),
            "--threads" => arguments.threads = usize::try_from(number()?).unwrap_or(1),
            "--trace" => arguments.trace = true,
            "--json" => arguments.json = true,
            "--restore" => arguments.restore = true,
            "--entry" => arguments.entry = true,
            other => return Err(format!("`{other}` is not known")),
        }
    }
    Ok(arguments)
}

fn campaign(arguments: &Arguments) -> bool {
    let campaign = Campaign {
        from: arguments.from,
        seeds: arguments.seeds,
        conditions: Conditions::default(),
        threads: arguments.threads,
    };
    let begin = Instant::now();
    let shown = AtomicU64::new(0);
    let progress = campaign.run(|progress| {
        let now = begin.elapsed().as_secs();
        let last = shown.load(Ordering::Relaxed);
        if !arguments.json && now >= last + SHOWN_EVERY.as_secs() {
            shown.store(now, Ordering::Relaxed);
            println!("{}", rates(progress, begin.elapsed()));
        }
    });
    let took = begin.elapsed();
    if !arguments.json {
        println!("{}", rates(&progress, took));
        println!("{}", progress.tally);
        if let Some(failure) = &progress.failure {
            show(failure, LINES);
        }
    }
    println!("{}", summary(&progress, took));
    progress.failure.is_none()
}

fn rates(progress: &Progress, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-3);
    let hours = progress.simulated_ms as f64 / 3_600_000.0;
    format!(
        "{} seeds, {:.1} h simulated in {seconds:.1} s: {:.0} seeds/s, {:.2} simulated hours/s",
        progress.seeds,
        hours,
        progress.seeds as f64 / seconds,
        hours / seconds,
    )
}

fn show(failure: &Failure, lines: usize) {
    let seed = failure.seed;
    let outcome = run(seed, &Conditions::default(), Trace::Kept);
    let broken = outcome
        .trace
        .iter()
        .position(|line| line.contains(" BROKEN "));
    let end = broken.map_or(outcome.trace.len(), |at| at + 1);
    let from = end.saturating_sub(lines);
    println!("\nthe last steps of seed {seed}:");
    for line in &outcome.trace[from..end] {
        println!("{line}");
    }
    for broken in &failure.broken {
        println!("\nbroken: {broken}");
    }
    println!("\nreplay it: cargo xtask sim --seed {seed} --trace");
}

fn replay(seed: u64, arguments: &Arguments) -> bool {
    let begin = Instant::now();
    let outcome = run(seed, &Conditions::default(), Trace::Kept);
    let ok = outcome.broken.is_empty();
    if !arguments.json {
        let all = outcome.trace.len();
        let from = if arguments.trace {
            0
        } else {
            all.saturating_sub(LINES)
        };
        for line in &outcome.trace[from..] {
            println!("{line}");
        }
        for broken in &outcome.broken {
            println!("\nbroken: {broken}");
        }
        println!("{}", outcome.tally);
    }
    let failure = (!ok).then_some(Failure {
        seed,
        broken: outcome.broken,
    });
    let progress = Progress {
        seeds: 1,
        simulated_ms: outcome.simulated_ms,
        tally: outcome.tally,
        failure,
    };
    println!("{}", summary(&progress, begin.elapsed()));
    ok
}

/// The last line: one JSON object.
fn summary(progress: &Progress, took: Duration) -> Value {
    let seconds = took.as_secs_f64().max(1e-3);
    let hours = progress.simulated_ms as f64 / 3_600_000.0;
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let happened: serde_json::Map<String, Value> = progress
        .tally
        .iter()
        .map(|(what, count)| (what.to_owned(), count.into()))
        .collect();
    let failure = progress.failure.as_ref().map(|failure| {
        let first = failure.broken.first();
        json!({
            "seed": failure.seed,
            "promise": first.map(|broken| broken.promise.name()),
            "what": first.map(|broken| broken.what.clone()),
        })
    });
    json!({
        "bench": "sim",
        "rounds": progress.seeds,
        "values": {
            "seeds": progress.seeds,
            "simulated_hours": rounded(hours),
            "took_s": rounded(seconds),
            "seeds_per_s": rounded(progress.seeds as f64 / seconds),
            "simulated_hours_per_s": rounded(hours / seconds),
        },
        "happened": happened,
        "failure": failure,
        "ok": progress.failure.is_none(),
    })
}

/// Requests through a gateway's workers to instances of which one fails.
fn play_entry(seed: Option<u64>, arguments: &Arguments) -> bool {
    let begin = Instant::now();
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => arguments.from..arguments.from + arguments.seeds,
    };
    let (mut tally, mut failure, mut played_seeds) = (Tally::default(), Value::Null, 0_u64);
    for seed in seeds {
        let played = play(seed);
        played_seeds += 1;
        tally.add(&played.tally);
        if let Some(first) = played.hurt.first() {
            if !arguments.json {
                println!("seed {seed}: {:?}", played.plot);
                for hurt in &played.hurt {
                    println!("broken: {hurt}");
                }
                println!("replay it: cargo xtask sim --entry --seed {seed}");
            }
            failure = json!({ "seed": seed, "promise": first.promise.name(), "what": first.what });
            break;
        }
    }
    if !arguments.json {
        println!("{tally}");
    }
    let ok = failure.is_null();
    let took = (begin.elapsed().as_secs_f64() * 100.0).round() / 100.0;
    let values = json!({ "seeds": played_seeds, "took_s": took });
    println!(
        "{}",
        json!({ "bench": "sim-entry", "rounds": played_seeds, "values": values, "failure": failure, "ok": ok })
    );
    ok
}

/// A restart of the control centre with a thousand instances, without disk and sockets.
fn measure_restore(arguments: &Arguments) -> bool {
    let (services, instances) = RESTORED;
    let mut rounds: Vec<Recovery> = (0..RESTORE_ROUNDS)
        .filter_map(|_| recover(services, instances))
        .collect();
    if rounds.len() < RESTORE_ROUNDS {
        eprintln!("error: what was published after the restart differs from before");
        return false;
    }
    rounds.sort_by_key(|round| round.restored + round.published);
    let median = rounds[RESTORE_ROUNDS / 2];
    let ms = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
    let all = ms(median.restored + median.published);
    if !arguments.json {
        println!(
            "{} instances: {} ms to restore, {} ms to publish after the first report",
            median.instances,
            ms(median.restored),
            ms(median.published)
        );
    }
    let ok = all <= RESTORE_BAR_MS;
    let values = json!({ "restore_1000_ms": all });
    println!(
        "{}",
        json!({ "bench": "restore", "rounds": RESTORE_ROUNDS, "values": values, "ok": ok })
    );
    ok
}
