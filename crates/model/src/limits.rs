//! Where a specification is surely a mistake, or would cost more than it may. The service file tells
//! each with its place; what comes over the API by another way is held against the same here.

use alloc::string::ToString;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use crate::service::{AddressSpec, Check, HealthSpec, LimitsSpec, RolloutSpec, ServiceSpec, Step};
use crate::template::Template;

/// The most variables of one service's environment. Programs with more read a file.
pub const ENV_MAX: usize = 256;
/// The most elements of an argument list.
pub const ARGV_MAX: usize = 256;
/// The longest text after `${VARIABLE}` was filled in. Linux hands no single argument of 128 KiB
/// to a program, and a variable repeated in a file must not fill the memory.
pub const TEXT_LEN_MAX: usize = 32 * 1024;
/// The shortest `health.every`: below it, probing 500 instances costs a core.
pub const HEALTH_EVERY_MIN: Duration = Duration::from_millis(10);
/// `health.fall` and `health.rise`. Above it an ill instance would be used for minutes.
pub const HEALTH_COUNT: RangeInclusive<u32> = 1..=100;
/// `log.size` in bytes. Below it, files rotate faster than they can be read; above it, one file is
/// more than an editor opens.
pub const LOG_SIZE: RangeInclusive<u64> = 4 * 1024..=4 * 1024 * 1024 * 1024;
/// `log.keep`: each rotation renames that many files.
pub const LOG_KEEP: RangeInclusive<u32> = 0..=100;
/// `limits.cpu` in thousandths of a processor. The kernel's shortest quota is a millisecond of each
/// 100; more than 1024 processors are surely a mistake.
pub const CPU_THOUSANDTHS: RangeInclusive<u32> = 10..=1_024_000;
/// `limits.memory` in bytes. With less, the kernel kills a program before it has said a word; more
/// is surely a mistake.
pub const MEMORY: RangeInclusive<u64> = 4 * 1024 * 1024..=4096 * 1024 * 1024 * 1024;
/// `limits.pids`: from the program alone to as many as Linux numbers.
pub const PIDS: RangeInclusive<u32> = 1..=4_194_304;
/// The longest name of an account that Linux's tools make.
pub const USER_LEN_MAX: usize = 32;

/// What a specification cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` must be {expected}")]
pub struct SpecError {
    /// The field.
    pub key: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

/// Refuses with the field and what it may be, unless `holds`.
pub(crate) fn hold(
    holds: bool,
    key: &'static str,
    expected: &'static str,
) -> Result<(), SpecError> {
    if holds {
        Ok(())
    } else {
        Err(SpecError { key, expected })
    }
}

impl ServiceSpec {
    /// Whether it can be carried out. One that was read from a service file can.
    pub fn check(&self) -> Result<(), SpecError> {
        check_program(&self.exec, "exec")?;
        if !self.before.is_empty() {
            check_program(&self.before, "before")?;
        }
        let dir_can_be = self.dir.starts_with('/') && is_text(&self.dir);
        hold(dir_can_be, "dir", "an absolute directory")?;
        let user_can_be = self.user.as_ref().is_none_or(|user| {
            (1..=USER_LEN_MAX).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_graphic())
        });
        hold(user_can_be, "user", "the name of an account")?;
        hold(self.env.len() <= ENV_MAX, "env", "at most 256 variables")?;
        for (name, value) in &self.env {
            let named = !name.is_empty() && !name.contains('=') && is_text(name);
            hold(named, "env", "variables whose names have no `=`")?;
            hold(fits(value), "env", "values of at most 32 KiB")?;
        }
        self.check_secrets()?;
        let address_can_be = match self.address {
            None | Some(AddressSpec::Auto) => true,
            Some(AddressSpec::Fixed(address)) => is_service_address(address),
        };
        let expected = "`auto`, or an address of one service, with a port";
        hold(address_can_be, "address", expected)?;
        self.health.check()?;
        self.rollout.check()?;
        self.traffic.check(self.http.as_ref())?;
        let log = &self.log;
        hold(LOG_SIZE.contains(&log.size), "log.size", "4 KiB to 4 GiB")?;
        hold(LOG_KEEP.contains(&log.keep), "log.keep", "0 to 100")?;
        self.limits.check()?;
        // Nobody calls a program with a schedule, and none of it is kept running.
        let routed = self.http.is_some() || !self.traffic.redirects.is_empty();
        let serves = self.address.is_some() || routed || self.instances > 0;
        let alone = self.schedule.is_none() || (!serves && self.before.is_empty());
        hold(alone, "schedule", "without address, route and instances")
    }
}

impl ServiceSpec {
    /// They are set last in an instance's environment, and so must not stand for what is Mainstay's:
    /// by that, an instance's processes are found and ended.
    fn check_secrets(&self) -> Result<(), SpecError> {
        let few = self.env.len() + self.secrets.len() <= ENV_MAX;
        hold(few, "secrets", "at most 256 variables together with `env`")?;
        for name in self.secrets.keys() {
            let named = !name.is_empty() && !name.contains('=') && is_text(name);
            let own = !name.starts_with("MAINSTAY_") && name != "HOST" && name != "PORT";
            let expected = "variables of their own: not HOST, PORT, MAINSTAY_ or one of `env`";
            hold(
                named && own && !self.env.contains_key(name),
                "secrets",
                expected,
            )?;
        }
        Ok(())
    }
}

impl LimitsSpec {
    fn check(&self) -> Result<(), SpecError> {
        let cpu = self.cpu_thousandths;
        let can_be = cpu.is_none_or(|cpu| CPU_THOUSANDTHS.contains(&cpu));
        hold(can_be, "limits.cpu_thousandths", "10 to 1024000")?;
        let memory = self.memory_bytes;
        let can_be = memory.is_none_or(|bytes| MEMORY.contains(&bytes));
        hold(can_be, "limits.memory_bytes", "4 MiB to 4 TiB")?;
        let can_be = self.pids.is_none_or(|pids| PIDS.contains(&pids));
        hold(can_be, "limits.pids", "1 to 4194304")
    }
}

impl HealthSpec {
    fn check(&self) -> Result<(), SpecError> {
        if let Check::Exec(argv) = &self.check {
            check_program(argv, "health.check")?;
        }
        let often = self.every >= HEALTH_EVERY_MIN;
        hold(often, "health.every", "at least 10ms")?;
        let waits = !self.timeout.is_zero();
        hold(waits, "health.timeout", "longer than nothing")?;
        for (count, key) in [(self.fall, "health.fall"), (self.rise, "health.rise")] {
            hold(HEALTH_COUNT.contains(&count.get()), key, "1 to 100")?;
        }
        Ok(())
    }
}

impl RolloutSpec {
    fn check(&self) -> Result<(), SpecError> {
        for (step, key) in [
            (Some(self.step), "rollout.step"),
            (self.canary, "rollout.canary"),
        ] {
            let share = match step {
                Some(Step::Percent(percent)) => percent.get() <= 100,
                Some(Step::Count(_)) | None => true,
            };
            hold(share, key, "1 to 100 percent")?;
        }
        let can_end = self.deadline > self.hold;
        hold(can_end, "rollout.deadline", "longer than `hold`")
    }
}

fn check_program(argv: &[Template], key: &'static str) -> Result<(), SpecError> {
    let expected = "a program with at most 255 arguments of at most 32 KiB each";
    let named = argv.first().is_some_and(|first| !first.pieces().is_empty());
    let can_be = named && argv.len() <= ARGV_MAX && argv.iter().all(fits);
    hold(can_be, key, expected)
}

fn fits(template: &Template) -> bool {
    template.to_string().len() <= TEXT_LEN_MAX
}

fn is_text(text: &str) -> bool {
    text.len() <= TEXT_LEN_MAX && !text.contains('\0')
}

fn is_service_address(address: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}
