//! What it takes to program all services, and to change one of them; beside what their rivals take.

use super::{
    back_ends,
    field::{Field, Service, even},
    rivals::Rival,
};
use crate::bench::{
    frame::{Extent, Run, median, short},
    machine::pss_kib,
};
use anyhow::{Context as _, Result, ensure};
use mainstay_forward::{BackEnd, Batch, Found};
use mainstay_model::forward::Counting;
use rustix::process::getpid;
use serde_json::json;
use std::{collections::BTreeMap, time::Instant};

/// `change_ms_p50`, `program_s`.
const CHANGE_MS_MAX: f64 = 1.0;
const PROGRAM_S_MAX: f64 = 0.4;
const SERVICES: u16 = 5000;
/// How often the generation is looked at for a median.
const CHECKS: u32 = 1000;

/// Everybody with the same services in force, each in a field of its own.
pub(super) struct Sides {
    pub(super) services: Vec<Service>,
    pub(super) ours: (Field, Box<dyn BackEnd>),
    /// The same without counting bytes.
    pub(super) uncounted: (Field, Box<dyn BackEnd>),
    pub(super) rivals: Vec<(Field, Rival)>,
}

impl Sides {
    pub(super) fn new() -> Result<Self> {
        let services: Vec<Service> = (1..=SERVICES).map(Service::numbered).collect();
        let ours = start(Counting::On)?;
        let mut uncounted = start(Counting::Off)?;
        uncounted.1.apply(&all(&services))?;
        let rivals = Rival::ALL.map(|rival| Ok((Field::new()?, rival)));
        let rivals = rivals.into_iter().collect::<Result<_>>()?;
        Ok(Self {
            services,
            ours,
            uncounted,
            rivals,
        })
    }

    pub(super) fn last(&self) -> Result<&Service> {
        self.services.last().context("there are services")
    }
}

fn start(counting: Counting) -> Result<(Field, Box<dyn BackEnd>)> {
    let field = Field::new()?;
    let nft = field.node.enter(|| back_ends::nft(counting))?;
    Ok((field, nft))
}

fn all(services: &[Service]) -> Batch {
    let services = services.iter();
    Batch {
        services: services.map(|one| (one.address, one.spread())).collect(),
        ..Batch::default()
    }
}

/// Milliseconds by who took them, round by round.
#[derive(Debug, Default)]
pub(super) struct Times(BTreeMap<String, Vec<f64>>);

impl Times {
    fn add(&mut self, key: &str, value: f64) {
        self.0.entry(key.to_owned()).or_default().push(value);
    }

    fn median(&self, key: &str) -> f64 {
        median(self.0.get(key).into_iter().flatten().copied())
    }

    /// Notes all medians but those of bars, which have their own lines.
    fn conclude(&self, run: &mut Run, raw: &str, bars: &[&str]) {
        for key in self.0.keys().filter(|key| !bars.contains(&key.as_str())) {
            run.value(key.as_str(), self.median(key));
        }
        run.raw(raw, json!(self.0));
    }
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// From nothing to all services, in turns.
pub(super) async fn program(run: &mut Run, sides: &mut Sides) -> Result<()> {
    let batch = all(&sides.services);
    let mut times = Times::default();
    for number in 1..=run.extent.rounds() {
        program_ours(sides, &batch, &mut times)?;
        for (field, rival) in &sides.rivals {
            let rules = rival.rules(&sides.services)?;
            let took = field.node.enter(|| -> Result<f64> {
                rival.clear()?;
                let start = Instant::now();
                rival.load(&rules)?;
                Ok(ms(start) / 1000.0)
            })?;
            times.add(&format!("program_s_{}", rival.name()), took);
            tokio::task::yield_now().await;
        }
        run.say(format!(
            "program, round {number}: {} s",
            short(times.median("program_s"))
        ));
    }
    run.at_most("program_s", times.median("program_s"), PROGRAM_S_MAX);
    times.conclude(run, "program", &["program_s"]);
    let alone = one_by_one(sides, &batch)?;
    super::red(run, "program_s", alone, PROGRAM_S_MAX);
    Ok(())
}

fn program_ours(sides: &mut Sides, batch: &Batch, times: &mut Times) -> Result<()> {
    let (field, nft) = &mut sides.ours;
    nft.remove()?;
    let before = pss_kib(getpid())?;
    let start = Instant::now();
    *nft = field.node.enter(|| back_ends::nft(Counting::On))?;
    times.add("program_start_ms", ms(start));
    nft.apply(batch)?;
    times.add("program_s", ms(start) / 1000.0);
    let after = pss_kib(getpid())?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 KiB")]
    times.add("program_grows_kib", after.saturating_sub(before) as f64);
    Ok(())
}

/// What a program would take that makes a transaction for each service.
fn one_by_one(sides: &mut Sides, batch: &Batch) -> Result<f64> {
    let (field, nft) = &mut sides.ours;
    nft.remove()?;
    let start = Instant::now();
    *nft = field.node.enter(|| back_ends::nft(Counting::On))?;
    for service in &batch.services {
        nft.apply(&Batch {
            services: vec![service.clone()],
            ..Batch::default()
        })?;
    }
    Ok(ms(start) / 1000.0)
}

/// An instance of one service leaves, and comes back; in turns.
pub(super) async fn change(run: &mut Run, sides: &mut Sides) -> Result<()> {
    let changes = run.extent.pick(200, 100);
    let mut times = Times::default();
    for number in 1..=run.extent.rounds() {
        let p50 = changes_ours(sides, changes)?;
        times.add("change_ms_p50", median(p50.iter().copied()));
        times.add("change_ms_p99", p99(p50));
        let mut services = sides.services.clone();
        let last = services.last_mut().context("there are services")?;
        last.instances[0] = super::field::instance(u16::MAX, u16::try_from(number)?);
        let last = last.clone();
        for (field, rival) in &sides.rivals {
            let rules = rival.rules(&services)?;
            field.node.enter(|| -> Result<()> {
                let start = Instant::now();
                rival.change_one(&last, services.len())?;
                times.add(&format!("change_ms_{}", rival.name()), ms(start));
                // Chains of nftables are never loaded whole for a change.
                if *rival != Rival::Chains {
                    let start = Instant::now();
                    rival.load(&rules)?;
                    times.add(&format!("change_whole_ms_{}", rival.name()), ms(start));
                }
                Ok(())
            })?;
            tokio::task::yield_now().await;
        }
        run.say(format!(
            "change, round {number}: {} ms",
            short(times.median("change_ms_p50"))
        ));
    }
    // Nobody listens where the changes led.
    let last = sides.last()?;
    for (field, rival) in &sides.rivals {
        field
            .node
            .enter(|| rival.change_one(last, sides.services.len()))?;
    }
    look_after(sides, &mut times, run.extent)?;
    run.at_most(
        "change_ms_p50",
        times.median("change_ms_p50"),
        CHANGE_MS_MAX,
    );
    // As one who does not know what is in force: everything anew.
    super::red(
        run,
        "change_ms_p50",
        times.median("repair_flushed_ms"),
        CHANGE_MS_MAX,
    );
    times.conclude(run, "change", &["change_ms_p50"]);
    Ok(())
}

fn changes_ours(sides: &mut Sides, changes: usize) -> Result<Vec<f64>> {
    let (_, nft) = &mut sides.ours;
    let mut found = Vec::with_capacity(2 * changes);
    // Far apart, since neighbours could be in the same memory.
    for service in sides.services.iter().step_by(17).take(changes) {
        for spread in [even(&service.instances[..2]), service.spread()] {
            let batch = Batch {
                services: vec![(service.address, spread)],
                ..Batch::default()
            };
            let start = Instant::now();
            nft.apply(&batch)?;
            found.push(ms(start));
        }
    }
    Ok(found)
}

fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = values.len() * 99 / 100;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// What a look costs, what it takes to mend, and what the next process needs to take over.
fn look_after(sides: &mut Sides, times: &mut Times, extent: Extent) -> Result<()> {
    let (field, nft) = &mut sides.ours;
    for _ in 0..extent.rounds() {
        let start = Instant::now();
        for _ in 0..CHECKS {
            ensure!(nft.check()? == Found::InForce, "nobody changed anything");
        }
        times.add("check_us", ms(start) * 1000.0 / f64::from(CHECKS));
        for (key, harm) in [
            ("repair_flushed_ms", "flush table inet mainstay"),
            ("repair_emptied_ms", "flush map inet mainstay slots4"),
            (
                "repair_nothing_ms",
                "add table inet theirs\ndelete table inet theirs",
            ),
        ] {
            Field::nft(&field.node, harm)?;
            let start = Instant::now();
            nft.check()?;
            times.add(key, ms(start));
        }
        let start = Instant::now();
        *nft = field.node.enter(|| back_ends::nft(Counting::On))?;
        times.add("take_over_ms", ms(start));
        ensure!(
            nft.in_force().0.len() == sides.services.len(),
            "all were taken over"
        );
    }
    Ok(())
}
