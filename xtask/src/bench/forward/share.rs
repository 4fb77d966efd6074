//! Whether connections follow the weights, by every back end: over 20,000 of them, with 1 to 50 instances and with
//! weights.

use super::{
    back_ends,
    field::{Field, SERVICE_PORT, instance, weighed},
    servers::Tally,
};
use crate::bench::frame::{Extent, Run, median, short};
use anyhow::{Context as _, Result};
use mainstay_control::forward::Spread;
use mainstay_forward::{BackEnd, Batch, ForwardError};
use mainstay_model::forward::{BackEndKind, Counting};
use mainstay_testkit::wait_until;
use rustix::net::sockopt::set_socket_linger;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// `share_error`. Chance alone gives 0.0035 for two instances (one standard deviation), so that the middle of three
/// sweeps is what counts.
const ERROR_MAX: f64 = 0.01;
const CONNECTIONS: u32 = 20_000;
const PORT: u16 = 8000;
const WEIGHTS: [u64; 3] = [70, 25, 5];
const PATIENCE: Duration = Duration::from_secs(10);

/// Weights of the instances of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Case(Vec<u64>);

fn cases(extent: Extent) -> Vec<Case> {
    let even = |count: usize| Case(vec![1; count]);
    let counts = match extent {
        Extent::Full => (1..=50).collect(),
        Extent::Quick => vec![1, 3, 50],
    };
    let weighed = Case(WEIGHTS.to_vec());
    counts.into_iter().map(even).chain([weighed]).collect()
}

pub(super) async fn measure(run: &mut Run) -> Result<()> {
    let sweeps = run.extent.pick(3, 1);
    let mut worst: f64 = 0.0;
    for kind in BackEndKind::ALL {
        let field = Field::new()?;
        let back_end = match field
            .node
            .enter(|| back_ends::start(kind, Counting::default()))
        {
            Ok(back_end) => back_end,
            Err(error) if is_missing(&error) => {
                run.say(format!("shares by {kind}: not measured, {error:#}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        let error = sweep(run, (&field, back_end), sweeps).await?;
        run.value(format!("share_error_{kind}"), error);
        worst = worst.max(error);
    }
    run.at_most("share_error", worst, ERROR_MAX);
    Ok(())
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ForwardError::Missing { .. }))
}

/// The greatest error of all cases; of each, the middle one of all sweeps.
async fn sweep(
    run: &mut Run,
    (field, mut back_end): (&Field, Box<dyn BackEnd>),
    sweeps: usize,
) -> Result<f64> {
    let kind = back_end.kind();
    let tally = Tally::start(&field.host, PORT)?;
    let mut errors: BTreeMap<Case, Vec<f64>> = BTreeMap::new();
    for _ in 0..sweeps {
        for case in cases(run.extent) {
            let counts = connect(field, &tally, (&mut *back_end, &case.0))?;
            let error = deviation(&case.0, &counts);
            errors.entry(case).or_default().push(error);
            tokio::task::yield_now().await;
        }
    }
    // As one who does not know weights: what is counted must show it.
    let counts = connect(field, &tally, (&mut *back_end, &[1; 3]))?;
    let key = format!("share_error_{kind}");
    super::red(run, &key, deviation(&WEIGHTS, &counts), ERROR_MAX);
    field.node.enter(|| back_end.remove())?;
    let raw: Vec<_> = errors
        .iter()
        .map(|(case, errors)| json!({"weights": case.0, "errors": errors}))
        .collect();
    run.raw(&key, json!(raw));
    let medians = errors.values().map(|errors| median(errors.iter().copied()));
    let worst = medians.fold(0.0, f64::max);
    run.say(format!("shares by {kind}: at most {} off", short(worst)));
    Ok(worst)
}

/// The instances of a case have addresses of their own, so that no port is short.
fn places(count: usize) -> Vec<SocketAddr> {
    let group = u16::try_from(count).unwrap_or(u16::MAX).saturating_mul(64);
    (0..count)
        .map(|index| instance(group + u16::try_from(index).unwrap_or(u16::MAX), PORT))
        .collect()
}

/// How many connections each instance got, in their order.
fn connect(
    field: &Field,
    tally: &Tally,
    (back_end, weights): (&mut dyn BackEnd, &[u64]),
) -> Result<Vec<u64>> {
    let places = places(weights.len());
    let last = u8::try_from(weights.len())?;
    let address = SocketAddr::from((Ipv4Addr::new(10, 96, 1, last), SERVICE_PORT));
    let spread: Spread = weighed(&places, weights);
    let batch = Batch {
        services: vec![(address, spread)],
        ..Batch::default()
    };
    tally.take();
    field.node.enter(|| -> Result<()> {
        back_end.apply(&batch)?;
        for _ in 0..CONNECTIONS {
            visit(address).with_context(|| format!("cannot connect to {address}"))?;
        }
        Ok(())
    })?;
    let mut counts: BTreeMap<IpAddr, u64> = BTreeMap::new();
    wait_until(PATIENCE, "all connections are counted", || {
        for (ip, count) in tally.take() {
            *counts.entry(ip).or_insert(0) += count;
        }
        let sum: u64 = counts.values().sum();
        if sum >= u64::from(CONNECTIONS) {
            Ok(())
        } else {
            Err(sum.to_string())
        }
    });
    let of = |place: &SocketAddr| counts.get(&place.ip()).copied().unwrap_or(0);
    Ok(places.iter().map(of).collect())
}

/// Connects and waits until the instance closes, so that also one is counted that a program in between leads there.
fn visit(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let read = stream.read(&mut [0])?;
    anyhow::ensure!(read == 0, "an instance said something");
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

/// The greatest difference between a share and what it should be.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn deviation(weights: &[u64], counts: &[u64]) -> f64 {
    let (all, total) = (
        weights.iter().sum::<u64>() as f64,
        counts.iter().sum::<u64>() as f64,
    );
    let pairs = weights.iter().zip(counts);
    let errors = pairs.map(|(weight, count)| (*weight as f64 / all - *count as f64 / total).abs());
    errors.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_difference_counts() {
        let error = deviation(&[70, 25, 5], &[6800, 2600, 600]);
        assert!((error - 0.02).abs() < 1e-9, "{error}");
        assert!(deviation(&[1; 4], &[10; 4]) < 1e-9);
    }
}
