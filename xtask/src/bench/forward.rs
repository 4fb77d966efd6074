//! `bench forward`: what forwarding in the kernel costs and what it keeps, against rules of iptables and a chain of
//! nftables per service.
//!
//! Everything happens in network namespaces that end with the bench: each side has a node, the host of its instances
//! and a foreign client of its own. It drives `mainstay_forward` as the agent does.
//!
//! Start reading at `field`; `rules` has what it takes to program and to change, `connect` what clients pay, `errors`,
//! `share` and `leave` what they see.

mod back_ends;
mod connect;
mod errors;
mod field;
mod leave;
mod rivals;
mod rules;
mod servers;
mod share;

use super::frame::{Run, median, short};
use anyhow::{Result, bail};
use connect::{Doors, Form};
use field::{Field, Service};
use rules::Sides;
use serde_json::json;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// `connect_added_us_p50`.
const CONNECT_ADDED_US_MAX: f64 = 6.0;
/// Of each form, between two times that the kernel's tables of connections are emptied.
const CONNECTIONS: usize = 1000;
const DIRECT: &str = "direct";
const OURS: &str = "ours";
const UNCOUNTED: &str = "ours_uncounted";
const PAST: &str = "ours_past";

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    if !mainstay_testkit::is_root() {
        bail!("needs root: makes network namespaces, and rules in them");
    }
    for file in rivals::FILES {
        run.show_file(file)?;
    }
    let mut sides = Sides::new()?;
    rules::program(run, &mut sides).await?;
    rules::change(run, &mut sides).await?;
    connect(run, &sides).await?;
    throughput(run, &sides).await?;
    drop(sides);
    errors::measure(run).await?;
    leave::measure(run).await?;
    share::measure(run).await
}

/// Notes what a bar's number is with the feature off, which has to miss it.
fn red(run: &mut Run, key: &str, value: f64, bar: f64) {
    run.red(key, value);
    if value <= bar {
        run.miss(format!(
            "{key} with the feature off is {}, and should not hold its bar of {}",
            short(value),
            short(bar)
        ));
    }
}

fn form<'a>(
    name: &'static str,
    (field, to): (&'a Field, SocketAddr),
    service: &Service,
) -> Result<Form<'a>> {
    let doors = Doors::open(&field.host, &service.instances)?;
    Ok(Form {
        name,
        field,
        to,
        doors,
    })
}

/// In each portion the kernel's tables of connections begin empty, for everybody: what it costs to track connections grows
/// with how many it has, by some 1 us with 60,000 of all nodes together, whoever has made the rules. Rounds in which they are
/// left as they are show how much (`connect_added_us_p50_full_*`).
async fn connect(run: &mut Run, sides: &Sides) -> Result<()> {
    let direct = Field::new()?;
    let forms = forms(sides, &direct)?;
    let mut emptied = Added::default();
    let mut full = Added::default();
    let portions = run.extent.pick(5, 1);
    for number in 1..=run.extent.rounds() {
        let mut slices = connect::Slices::of(&forms);
        for _ in 0..portions {
            forget_connections(&forms)?;
            slices.add(&forms, CONNECTIONS)?;
            tokio::task::yield_now().await;
        }
        let medians = slices.medians();
        run.say(format!(
            "connect, round {number}: direct {} us, ours {} more",
            short(medians[0]),
            short(medians[1] - medians[0])
        ));
        emptied.note(&forms, &medians);
    }
    for _ in 0..run.extent.rounds() {
        let mut slices = connect::Slices::of(&forms);
        slices.add(&forms, portions * CONNECTIONS)?;
        full.note(&forms, &slices.medians());
        tokio::task::yield_now().await;
    }
    run.value(
        "connect_direct_us_p50",
        median(emptied.plain.iter().copied()),
    );
    run.at_most(
        "connect_added_us_p50",
        emptied.median(OURS),
        CONNECT_ADDED_US_MAX,
    );
    for name in emptied.added.keys().filter(|name| **name != OURS) {
        run.value(format!("connect_added_us_p50_{name}"), emptied.median(name));
    }
    for name in full.added.keys() {
        run.value(
            format!("connect_added_us_p50_full_{name}"),
            full.median(name),
        );
    }
    // One rule after the other, instead of a map.
    red(
        run,
        "connect_added_us_p50",
        emptied.median("iptables_nft"),
        CONNECT_ADDED_US_MAX,
    );
    run.raw("connect_direct_us_p50", json!(emptied.plain));
    run.raw("connect_added_us_p50", json!(emptied.added));
    run.raw("connect_added_us_p50_full", json!(full.added));
    Ok(())
}

fn forms<'a>(sides: &'a Sides, direct: &'a Field) -> Result<Vec<Form<'a>>> {
    let last = sides.last()?;
    let instance = last.instances[0];
    let mut forms = vec![
        form(DIRECT, (direct, instance), last)?,
        form(OURS, (&sides.ours.0, last.address), last)?,
        form(UNCOUNTED, (&sides.uncounted.0, last.address), last)?,
        // What our rules cost those who pass by them, the kernel's tracking of connections included.
        Form {
            name: PAST,
            field: &sides.ours.0,
            to: instance,
            doors: Doors::default(),
        },
    ];
    for (field, rival) in &sides.rivals {
        forms.push(form(rival.name(), (field, last.address), last)?);
    }
    Ok(forms)
}

fn forget_connections(forms: &[Form<'_>]) -> Result<()> {
    // The direct node tracks none.
    for form in forms.iter().filter(|form| form.name != DIRECT) {
        let mut conntrack = form
            .field
            .node
            .command(&mainstay_testkit::program("conntrack"));
        let done = conntrack.arg("--flush").output()?;
        if !done.status.success() {
            bail!(
                "conntrack --flush: {}",
                String::from_utf8_lossy(&done.stderr).trim()
            );
        }
    }
    Ok(())
}

/// Medians of rounds in microseconds, and what each form of rules adds to them.
#[derive(Default)]
struct Added {
    plain: Vec<f64>,
    added: BTreeMap<&'static str, Vec<f64>>,
}

impl Added {
    /// Takes in a round. The first form is the one without rules.
    fn note(&mut self, forms: &[Form<'_>], medians: &[f64]) {
        self.plain.push(medians[0]);
        for (form, found) in forms.iter().zip(medians).skip(1) {
            let added = self.added.entry(form.name).or_default();
            added.push(found - medians[0]);
        }
    }

    fn median(&self, name: &str) -> f64 {
        median(self.added.get(name).into_iter().flatten().copied())
    }
}

async fn throughput(run: &mut Run, sides: &Sides) -> Result<()> {
    let lasts = Duration::from_secs(run.extent.pick(2, 1));
    let last = sides.last()?;
    let at = last.instances[0];
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let direct = Field::new()?;
    let ports: Vec<u16> = last.instances.iter().map(SocketAddr::port).collect();
    for _ in 0..run.extent.rounds() {
        let forms = [
            (DIRECT, &direct, at),
            (OURS, &sides.ours.0, last.address),
            (UNCOUNTED, &sides.uncounted.0, last.address),
        ];
        for (name, field, to) in forms {
            let carried = connect::throughput(field, to, &ports, lasts)?;
            found.entry(name).or_default().push(carried);
            tokio::task::yield_now().await;
        }
    }
    for (name, carried) in &found {
        run.value(
            format!("throughput_gbit_{name}"),
            median(carried.iter().copied()),
        );
    }
    run.raw("throughput_gbit", json!(found));
    Ok(())
}
