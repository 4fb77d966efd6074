//! What one worker knows of one service, and how its owner wants it to fail.

use alloc::vec::Vec;

use mainstay_ids::Instant;

use super::hedge;
use super::line::{Line, LineBounds};
use super::recent::RecentLatencies;
use super::retry::IdempotencyKey;
use super::set::{Limiting, Listed, Set};

/// Whether requests are sent again, or wait for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retrying {
    /// As far as it is safe.
    #[default]
    On,
    /// Never.
    Off,
}

/// Whether a safe request may be sent a second time while the first is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hedging {
    /// When its answer is late.
    #[default]
    On,
    /// Never.
    Off,
}

/// Whether a second endpoint is tried while a connection to the first does not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patience {
    /// After [`hedge::CONNECT_PATIENCE`].
    #[default]
    Short,
    /// As long as a connection may take.
    Endless,
}

/// So many checks of whether a service lives go beyond its limit at a time, in each worker: those of
/// a few load balancers and monitors, each second. It is no more, since anybody can ask for the path
/// of a check.
pub(super) const BEYOND_MAX: u32 = 10;

/// How a service fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether requests are sent again.
    pub retrying: Retrying,
    /// Whether a late one is sent a second time.
    pub hedging: Hedging,
    /// Whether a late connection is.
    pub patience: Patience,
    /// Whether instances are held to their limits.
    pub limiting: Limiting,
    /// What an instance is given at once at most, whatever its answers say; `None`: no such word.
    pub most: Option<u32>,
    /// What the service promises of requests with an `Idempotency-Key`.
    pub key: IdempotencyKey,
    /// How many may wait for an instance to have room, and how long a request waits for one at all:
    /// for room, or for one that can be reached. The caller divides what is given for a service by its
    /// workers.
    pub line: LineBounds,
}

/// What one worker knows of one service.
#[derive(Debug, Clone)]
pub struct Balancer<E> {
    pub(super) policy: Policy,
    pub(super) set: Set<E>,
    pub(super) recent: RecentLatencies,
    pub(super) line: Line,
    /// Checks under way beyond the limit.
    pub(super) beyond: u32,
}

impl<E> Balancer<E> {
    /// Of a service without endpoints, of which nothing is known.
    pub fn new(now: Instant, policy: Policy) -> Self {
        Self {
            policy,
            set: Set::new(policy.limiting, policy.most),
            recent: RecentLatencies::new(now),
            line: Line::new(policy.line),
            beyond: 0,
        }
    }

    /// How it fails.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Its owner has changed how it fails. Who waits goes on waiting.
    pub fn change(&mut self, policy: Policy) {
        self.policy = policy;
        self.set.limit_by(policy.limiting, policy.most);
        self.line.bound(policy.line);
    }

    /// The endpoints.
    pub fn set(&self) -> &Set<E> {
        &self.set
    }

    /// Those who wait for one to have room.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// How long a request is waited for before a second copy goes out.
    pub fn hedge_after(&mut self, now: Instant) -> core::time::Duration {
        hedge::after(self.recent.p95(now))
    }
}

impl<E: PartialEq> Balancer<E> {
    /// Takes over a new list of endpoints.
    pub fn update(&mut self, now: Instant, listed: Vec<Listed<E>>) {
        self.set.update(now, listed);
    }
}
