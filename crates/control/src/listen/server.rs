//! One server: its checks, what an operator wants of it, and so whether it may be chosen.

use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::ProbedHealth;
use mainstay_model::listen::CheckSpec;

use crate::health::{Health, Pace, Probe};

/// What an operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It serves as far as its checks say so.
    #[default]
    Ready,
    /// It gets no new sessions; those that it has go on, and it is checked as before.
    Drain,
    /// The same, and it is not checked: somebody works on it.
    Maintenance,
}

/// Where a server stands: the one word for people, and what a choice goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is not checked, and taken for up.
    Unchecked,
    /// No check has ended yet: taken for up, since what is not known to be down may serve.
    Unknown,
    /// Its checks pass.
    Up,
    /// Its checks fail.
    Down,
    /// An operator drains it; it is up or not known to be down.
    Drain,
    /// An operator works on it.
    Maintenance,
}

impl Standing {
    /// Whether new sessions may go there.
    pub const fn takes_new(self) -> bool {
        match self {
            Self::Unchecked | Self::Unknown | Self::Up => true,
            Self::Down | Self::Drain | Self::Maintenance => false,
        }
    }
}

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A check of it began.
    CheckStarted,
    /// It ended so.
    CheckEnded(CheckResult),
    /// A connection for a client could not be made: look soon.
    ConnectFailed,
    /// What an operator wants.
    Want(Wanted),
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    /// As it should.
    Passed,
    /// Not so, or too late.
    Failed,
}

/// A server's standing became another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// It was.
    pub from: Standing,
    /// It is.
    pub to: Standing,
}

/// What its checks say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Checks {
    /// There are none.
    None,
    /// None has ended.
    Awaited(Health),
    /// They pass.
    Passing(Health),
    /// They fail since then.
    Failing { health: Health, since: Instant },
}

/// The machine of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    checks: Checks,
    wanted: Wanted,
    /// Since when the standing is what it is.
    changed: Instant,
    /// When it last rose from being down.
    rose: Option<Instant>,
    /// How often it went down.
    falls: u64,
    /// For how long it was down, but for the present time.
    down_before: Duration,
}

fn pace(check: &CheckSpec) -> Pace {
    Pace {
        every: check.every,
        fall: check.fall,
        rise: check.rise,
        start: None,
        restart: None,
    }
}

impl Server {
    /// A server that is known since `now`; its first check is due at once.
    pub fn new(check: Option<&CheckSpec>, now: Instant) -> Self {
        Self {
            checks: check.map_or(Checks::None, |check| {
                Checks::Awaited(Health::paced(pace(check), now))
            }),
            wanted: Wanted::Ready,
            changed: now,
            rose: None,
            falls: 0,
            down_before: Duration::ZERO,
        }
    }

    /// How it is checked was changed. What is known of it stays until a check says otherwise: a
    /// server that is down does not get sessions because somebody edited a file.
    pub fn recheck(&mut self, check: Option<&CheckSpec>, now: Instant) -> Option<Changed> {
        let from = self.standing();
        let Some(check) = check else {
            self.account_down(now);
            self.checks = Checks::None;
            return self.changed_from(from, now);
        };
        let mut health = Health::paced(pace(check), now);
        self.checks = match &self.checks {
            Checks::None | Checks::Awaited(_) => Checks::Awaited(health),
            Checks::Passing(_) => {
                health.handle(now, Probe::Passed);
                health.hasten(now);
                Checks::Passing(health)
            }
            Checks::Failing { since, .. } => Checks::Failing {
                health,
                since: *since,
            },
        };
        self.changed_from(from, now)
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        match (self.wanted, &self.checks) {
            (Wanted::Maintenance, _) => Standing::Maintenance,
            (Wanted::Ready | Wanted::Drain, Checks::Failing { .. }) => Standing::Down,
            (Wanted::Drain, Checks::None | Checks::Awaited(_) | Checks::Passing(_)) => {
                Standing::Drain
            }
            (Wanted::Ready, Checks::None) => Standing::Unchecked,
            (Wanted::Ready, Checks::Awaited(_)) => Standing::Unknown,
            (Wanted::Ready, Checks::Passing(_)) => Standing::Up,
        }
    }

    /// What an operator wants of it.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Since when its standing is what it is.
    pub fn changed_at(&self) -> Instant {
        self.changed
    }

    /// When it last rose from being down or from an operator's hands, for its slow start; never at
    /// the beginning, when all are equally cold.
    pub fn rose_at(&self) -> Option<Instant> {
        self.rose
    }

    /// How often it went down.
    pub fn falls(&self) -> u64 {
        self.falls
    }

    /// For how long it was down in all. Maintenance does not count.
    pub fn downtime(&self, now: Instant) -> Duration {
        let present = match self.checks {
            Checks::Failing { since, .. } => now.since(since),
            Checks::None | Checks::Awaited(_) | Checks::Passing(_) => Duration::ZERO,
        };
        self.down_before + present
    }

    /// When the next check is due; `None` while one is under way or none is wanted.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.wanted {
            Wanted::Ready | Wanted::Drain => self.health()?.next_deadline(),
            Wanted::Maintenance => None,
        }
    }

    /// Takes in what happened. `Some` is another standing.
    pub fn handle(&mut self, now: Instant, input: Input) -> Option<Changed> {
        let from = self.standing();
        match input {
            Input::CheckStarted => {
                if let Some(health) = self.health_mut() {
                    health.handle(now, Probe::Started);
                }
            }
            Input::CheckEnded(result) => self.take_result(now, result),
            Input::ConnectFailed => {
                if let Some(health) = self.health_mut() {
                    health.hasten(now);
                }
            }
            Input::Want(wanted) => self.want(now, wanted),
        }
        self.changed_from(from, now)
    }

    fn want(&mut self, now: Instant, wanted: Wanted) {
        let was = self.wanted;
        self.wanted = wanted;
        if was == Wanted::Maintenance && wanted != Wanted::Maintenance {
            // What was known before somebody worked on it says nothing any more; the next check is
            // due at once, and until it ends the server gets nothing if it was down before.
            if let Some(health) = self.health_mut() {
                health.hasten(now);
            }
        }
        // The time in maintenance is no downtime: somebody wanted it.
        if let Checks::Failing { since, .. } = &mut self.checks {
            match (was, wanted) {
                (Wanted::Ready | Wanted::Drain, Wanted::Maintenance) => {
                    self.down_before += now.since(*since);
                    *since = Instant::NEVER;
                }
                (Wanted::Maintenance, Wanted::Ready | Wanted::Drain) => *since = now,
                (Wanted::Ready | Wanted::Drain, Wanted::Ready | Wanted::Drain)
                | (Wanted::Maintenance, Wanted::Maintenance) => {}
            }
        }
    }

    fn take_result(&mut self, now: Instant, result: CheckResult) {
        // A check that was under way when the maintenance began tells of work, not of the server;
        // but its end must be seen, or there would never be another.
        let in_maintenance = self.wanted == Wanted::Maintenance;
        let Some(health) = self.health_mut() else {
            return;
        };
        let probe = match result {
            CheckResult::Passed => Probe::Passed,
            CheckResult::Failed => Probe::Failed,
        };
        if in_maintenance {
            health.put_back(now);
            return;
        }
        health.handle(now, probe);
        let verdict = health.verdict();
        self.checks = match (core::mem::replace(&mut self.checks, Checks::None), verdict) {
            (Checks::None, _) => Checks::None,
            (Checks::Awaited(health) | Checks::Passing(health), ProbedHealth::Passing) => {
                Checks::Passing(health)
            }
            // The first check of all says it: there is nothing to lose by waiting for the next.
            (
                Checks::Awaited(health) | Checks::Passing(health),
                ProbedHealth::Starting | ProbedHealth::Failing,
            ) => {
                self.falls += 1;
                Checks::Failing { health, since: now }
            }
            (Checks::Failing { health, since }, ProbedHealth::Passing) => {
                self.down_before += now.since(since);
                Checks::Passing(health)
            }
            (Checks::Failing { health, since }, ProbedHealth::Starting | ProbedHealth::Failing) => {
                Checks::Failing { health, since }
            }
        };
    }

    fn account_down(&mut self, now: Instant) {
        if let Checks::Failing { since, .. } = self.checks {
            self.down_before += now.since(since);
        }
    }

    fn changed_from(&mut self, from: Standing, now: Instant) -> Option<Changed> {
        let to = self.standing();
        if from == to {
            return None;
        }
        self.changed = now;
        if !from.takes_new() && to.takes_new() {
            self.rose = Some(now);
        }
        Some(Changed { from, to })
    }

    fn health(&self) -> Option<&Health> {
        match &self.checks {
            Checks::None => None,
            Checks::Awaited(health) | Checks::Passing(health) | Checks::Failing { health, .. } => {
                Some(health)
            }
        }
    }

    fn health_mut(&mut self) -> Option<&mut Health> {
        match &mut self.checks {
            Checks::None => None,
            Checks::Awaited(health) | Checks::Passing(health) | Checks::Failing { health, .. } => {
                Some(health)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;
    use mainstay_model::listen::CheckKind;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn check() -> CheckSpec {
        CheckSpec::of(CheckKind::Tcp)
    }

    fn server() -> Server {
        Server::new(Some(&check()), at(0))
    }

    fn checked(server: &mut Server, ms: u64, result: CheckResult) -> Option<Changed> {
        server.handle(at(ms), Input::CheckStarted);
        server.handle(at(ms), Input::CheckEnded(result))
    }

    #[test]
    fn what_is_not_known_to_be_down_may_serve_and_the_first_check_decides() {
        let mut one = server();
        assert_eq!(one.standing(), Standing::Unknown);
        assert!(one.standing().takes_new());
        let changed = checked(&mut one, 0, CheckResult::Failed);
        let expected = Changed {
            from: Standing::Unknown,
            to: Standing::Down,
        };
        assert_eq!(changed, Some(expected));
        let mut one = server();
        checked(&mut one, 0, CheckResult::Passed);
        assert_eq!(one.standing(), Standing::Up);
        assert_eq!(one.rose_at(), None, "all are cold at the beginning");
        assert_eq!(
            checked(&mut one, 1000, CheckResult::Failed),
            None,
            "one may be an accident"
        );
        assert!(checked(&mut one, 2000, CheckResult::Failed).is_some());
        assert_eq!(one.standing(), Standing::Down);
        checked(&mut one, 3000, CheckResult::Passed);
        assert_eq!(
            (one.standing(), one.rose_at()),
            (Standing::Up, Some(at(3000)))
        );
        assert_eq!(
            (one.falls(), one.downtime(at(9000))),
            (1, Duration::from_secs(1))
        );
    }

    #[test]
    fn a_server_without_checks_serves_and_is_never_due() {
        let mut one = Server::new(None, at(0));
        assert_eq!(
            (one.standing(), one.next_deadline()),
            (Standing::Unchecked, None)
        );
        assert_eq!(one.handle(at(1), Input::ConnectFailed), None);
        assert_eq!(one.standing(), Standing::Unchecked);
    }

    #[test]
    fn a_failed_connection_hastens_the_next_check() {
        let mut one = server();
        checked(&mut one, 0, CheckResult::Passed);
        assert_eq!(one.next_deadline(), Some(at(1000)));
        one.handle(at(300), Input::ConnectFailed);
        assert_eq!(one.next_deadline(), Some(at(300)));
        one.handle(at(300), Input::CheckStarted);
        one.handle(at(310), Input::ConnectFailed);
        assert_eq!(one.next_deadline(), None, "one is under way");
    }

    #[test]
    fn a_drained_server_gets_nothing_new_is_checked_and_comes_back_with_a_slow_start() {
        let mut one = server();
        checked(&mut one, 0, CheckResult::Passed);
        let changed = one.handle(at(10), Input::Want(Wanted::Drain));
        let expected = Changed {
            from: Standing::Up,
            to: Standing::Drain,
        };
        assert_eq!(changed, Some(expected));
        assert!(!one.standing().takes_new() && one.next_deadline().is_some());
        for ms in [1000, 2000] {
            checked(&mut one, ms, CheckResult::Failed);
        }
        assert_eq!(
            one.standing(),
            Standing::Down,
            "that it is down matters more"
        );
        checked(&mut one, 3000, CheckResult::Passed);
        assert_eq!(one.standing(), Standing::Drain);
        one.handle(at(4000), Input::Want(Wanted::Ready));
        assert_eq!(
            (one.standing(), one.rose_at()),
            (Standing::Up, Some(at(4000)))
        );
    }

    #[test]
    fn a_server_in_maintenance_is_not_checked_and_its_time_is_no_downtime() {
        let mut one = server();
        checked(&mut one, 0, CheckResult::Failed);
        one.handle(at(1000), Input::CheckStarted);
        one.handle(at(1000), Input::Want(Wanted::Maintenance));
        assert_eq!(
            (one.standing(), one.next_deadline()),
            (Standing::Maintenance, None)
        );
        one.handle(at(1100), Input::CheckEnded(CheckResult::Passed));
        assert_eq!(one.standing(), Standing::Maintenance);
        one.handle(at(61_000), Input::Want(Wanted::Ready));
        assert_eq!(
            one.standing(),
            Standing::Down,
            "until a check says otherwise"
        );
        assert!(
            one.next_deadline() <= Some(at(61_000)),
            "which is due at once"
        );
        checked(&mut one, 61_000, CheckResult::Passed);
        assert_eq!(one.standing(), Standing::Up);
        assert_eq!(one.downtime(at(70_000)), Duration::from_secs(1));
    }

    #[test]
    fn other_checks_do_not_forget_that_a_server_is_down() {
        let mut one = server();
        checked(&mut one, 0, CheckResult::Failed);
        let slower = CheckSpec {
            rise: NonZeroU32::MIN,
            every: Duration::from_secs(9),
            ..check()
        };
        assert_eq!(one.recheck(Some(&slower), at(500)), None);
        assert_eq!(
            (one.standing(), one.next_deadline()),
            (Standing::Down, Some(at(500)))
        );
        checked(&mut one, 500, CheckResult::Passed);
        assert_eq!(one.next_deadline(), Some(at(9500)));
        assert_eq!(one.recheck(Some(&check()), at(600)), None);
        assert_eq!(
            (one.standing(), one.next_deadline()),
            (Standing::Up, Some(at(600)))
        );
        checked(&mut one, 600, CheckResult::Failed);
        assert_eq!(
            one.standing(),
            Standing::Up,
            "it has to fall as often as ever"
        );
        assert!(one.recheck(None, at(700)).is_some());
        assert_eq!(one.standing(), Standing::Unchecked);
    }
}
