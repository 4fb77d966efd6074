//! What the broker's process is told.

use std::time::Duration;

use clap::Args;

use super::{Start, parse_duration};

#[derive(Debug, Args)]
pub(crate) struct BrokerProcess {
    #[command(flatten)]
    pub(crate) start: Start,
    /// Publishers wait above so many bytes of memory.
    #[arg(long)]
    pub(crate) memory_max: u64,
    /// Publishers wait below so many free bytes of the disk.
    #[arg(long)]
    pub(crate) disk_free_min: u64,
    /// How long a consumer may keep a delivery.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) consumer_timeout: Duration,
    /// Queues that clients may declare in a virtual host.
    #[arg(long)]
    pub(crate) queues_max: Option<usize>,
}
