//! What clients see while a service changes two hundred times per second: local ones, and those of another host.

use super::{
    back_ends,
    field::{Field, Service, even, pause},
    servers::Echo,
};
use crate::bench::frame::Run;
use anyhow::Result;
use mainstay_forward::{BackEnd, Batch};
use mainstay_model::forward::Counting;
use mainstay_testkit::Netns;
use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Two hundred changes per second.
const BETWEEN_CHANGES: Duration = Duration::from_millis(5);
/// The share of changes that may come too late to count, because the machine was busy.
const LATE_SHARE_MAX: f64 = 0.05;
/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the service changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    None,
    /// As Mainstay does it.
    AtOnce,
    /// Taken away, then added again.
    InTwoSteps,
}

#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    failed: BTreeMap<String, u64>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_insert(0) += count;
        }
    }

    fn errors(&self) -> u64 {
        self.failed.values().sum()
    }

    fn as_json(&self) -> Value {
        json!({"answered": self.answered, "failed": self.failed})
    }
}

pub(super) async fn measure(run: &mut Run) -> Result<()> {
    let field = Field::new()?;
    let service = Service::numbered(1);
    let _instances = [0, 1, 2]
        .map(|index| Echo::start(&field.host, service.instances[index].port()))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let mut nft = field.node.enter(|| back_ends::nft(Counting::On))?;
    let lasts = Duration::from_secs(run.extent.pick(10, 2));
    let (mut answered, mut errors, mut in_two_steps) = (0, 0, 0);
    let mut raw = Vec::new();
    // The bar is of ten seconds of changes in each round.
    for number in 1..=run.extent.rounds() {
        for (changes, lasts) in [
            (Changes::None, lasts / 5),
            (Changes::AtOnce, lasts),
            (Changes::InTwoSteps, lasts / 5),
        ] {
            let (seen, (made, late)) = load(&field, &service, &mut *nft, (changes, lasts))?;
            let is_late = f64::from(late) > LATE_SHARE_MAX * f64::from(made);
            if changes == Changes::AtOnce && is_late {
                run.miss(format!(
                    "{late} of {made} changes came too late: the machine is too busy for this to count"
                ));
            }
            raw.push(
                json!({"changes": format!("{changes:?}"), "made": made, "seen": seen.as_json()}),
            );
            match changes {
                Changes::None if seen.errors() > 0 => {
                    run.miss(format!(
                        "without any change clients saw errors: {:?}",
                        seen.failed
                    ));
                }
                Changes::None => {}
                Changes::AtOnce => {
                    errors += seen.errors();
                    run.say(format!(
                        "changes, round {number}: {} errors of {} connections during {made} changes",
                        seen.errors(),
                        seen.answered + seen.errors()
                    ));
                    answered += seen.answered;
                }
                Changes::InTwoSteps => in_two_steps += seen.errors(),
            }
            tokio::task::yield_now().await;
        }
    }
    run.raw("errors_during_changes", json!(raw));
    run.value("connections_during_changes", approximate(answered));
    run.at_most("errors_during_changes", approximate(errors), 0.0);
    super::red(run, "errors_during_changes", approximate(in_two_steps), 0.0);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 connections")]
fn approximate(count: u64) -> f64 {
    count as f64
}

/// What the clients saw, how many changes were made meanwhile, and how many of them late.
fn load(
    field: &Field,
    service: &Service,
    nft: &mut dyn BackEnd,
    (changes, lasts): (Changes, Duration),
) -> Result<(Seen, (u32, u32))> {
    nft.apply(&serve(service, 3))?;
    let stop = AtomicBool::new(false);
    let (seen, made) = std::thread::scope(|scope| {
        let clients = [&field.node, &field.client]
            .map(|from| scope.spawn(|| client(from, service.address, &stop)));
        let made = make_changes(service, nft, changes, lasts);
        stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for client in clients {
            seen.add(
                client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        (seen, made)
    });
    Ok((seen, made?))
}

fn serve(service: &Service, instances: usize) -> Batch {
    Batch {
        services: vec![(service.address, even(&service.instances[..instances]))],
        ..Batch::default()
    }
}

/// How many were made, and how many of them more than a whole turn late.
fn make_changes(
    service: &Service,
    nft: &mut dyn BackEnd,
    changes: Changes,
    lasts: Duration,
) -> Result<(u32, u32)> {
    let start = Instant::now();
    let (mut made, mut late) = (0, 0);
    if changes == Changes::None {
        pause(lasts);
        return Ok((0, 0));
    }
    while start.elapsed() < lasts {
        let due = start + BETWEEN_CHANGES * made;
        match due.checked_duration_since(Instant::now()) {
            Some(early) => pause(early),
            None => late += u32::from(due.elapsed() > BETWEEN_CHANGES),
        }
        if changes == Changes::InTwoSteps {
            nft.apply(&Batch {
                gone: vec![service.address],
                ..Batch::default()
            })?;
        }
        nft.apply(&serve(service, if made % 2 == 0 { 2 } else { 3 }))?;
        made += 1;
    }
    Ok((made, late))
}

fn client(from: &Netns, to: SocketAddr, stop: &AtomicBool) -> Seen {
    from.enter(|| {
        let mut seen = Seen::default();
        while !stop.load(Ordering::Relaxed) {
            match ask(to, seen.answered) {
                Ok(()) => seen.answered += 1,
                Err(error) => {
                    let kind = format!("{:?}", error.kind());
                    *seen.failed.entry(kind).or_insert(0) += 1;
                }
            }
        }
        seen
    })
}

/// Connects, and wants its number back.
fn ask(to: SocketAddr, number: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let number = number.to_be_bytes();
    stream.write_all(&number)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    // So that its port is free again.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    if answer == number {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
