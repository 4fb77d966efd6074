//! Looks once a second whether memory and disk suffice, and lets publishers wait if they do not.

use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::statvfs;
use rustix::param::page_size;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::house::House;
use crate::limits::LOOK_EVERY;
use crate::writer::Order;

/// What RabbitMQ calls the reasons; clients show them.
pub(crate) const LOW_ON_MEMORY: &str = "low on memory";
pub(crate) const LOW_ON_DISK: &str = "low on disk";

/// What suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Publishers wait while the process takes more memory than this, in bytes.
    pub memory_max: u64,
    /// Publishers wait while the disk has less room than this, in bytes.
    pub disk_free_min: u64,
}

/// Looks until it is dropped.
pub(crate) async fn watch(house: Rc<House>, directory: PathBuf, orders: mpsc::WeakSender<Order>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let alarm = look(&house, &directory);
        house.set_alarm(alarm);
        if house.gauges.wants_retry()
            && let Some(orders) = orders.upgrade()
        {
            // Full means that it tries at once anyhow.
            orders.try_send(Order::Retry).ok();
        }
    }
}

fn look(house: &House, directory: &PathBuf) -> Option<&'static str> {
    let limits = house.limits;
    let free = statvfs(directory).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    house.disk_free.set(free.ok());
    if !house.gauges.has_room() {
        return Some(LOW_ON_DISK);
    }
    if free.is_ok_and(|free| free < limits.disk_free_min) {
        return Some(LOW_ON_DISK);
    }
    resident()
        .is_some_and(|resident| resident > limits.memory_max)
        .then_some(LOW_ON_MEMORY)
}

/// Memory of this process, in bytes; `None` where the kernel does not say.
pub(crate) fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(page_size()).ok()?)
}
