//! What the broker's process is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mainstay_broker::Seams;

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
    /// What clients with TLS are shown.
    #[arg(long, requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authorities of which they must have a certificate.
    #[arg(long)]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// How long a consumer may keep a delivery.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) consumer_timeout: Duration,
    /// Queues that clients may declare in a virtual host.
    #[arg(long)]
    pub(crate) queues_max: Option<usize>,
    /// Where `/metrics` is answered; by default nowhere.
    #[arg(long)]
    pub(crate) metrics: Option<SocketAddr>,
    #[arg(long, default_value = "")]
    pub(crate) unsafe_broker_seams: Seams,
}
