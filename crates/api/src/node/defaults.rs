//! What holds for a key of a node's file that is not written. The schema and the reference page
//! print these. The defaults of the limits are in [`mainstay_model::gateway`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Role;
pub use mainstay_model::forward::METRICS;

/// `roles`: a machine alone does all.
pub const ROLES: [Role; 3] = [Role::Control, Role::Agent, Role::Gateway];
/// `state`: where the file hierarchy standard has the state of a daemon.
pub const STATE: &str = "/var/lib/mainstay";
/// `address`: reached from this machine alone.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// `api.address`: as `mainstay dev` has it.
pub const API: &str = "127.0.0.1:7770";
/// `gateway.http`: where clients look first.
pub const HTTP: &str = ":80";
/// `gateway.stats`: seen from this machine alone, so that it needs no password.
pub const STATS: &str = "127.0.0.1:8888";
/// `gateway.access_log`: who looks for a failed request needs the line.
pub const ACCESS_LOG: bool = true;
/// `broker.bind`: the port that clients of AMQP know, reached from this machine alone.
pub fn broker() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5672)
}
/// The port of `broker.tls.bind`: that of AMQP in TLS.
pub const BROKER_TLS_PORT: u16 = 5671;
/// `broker.metrics`: where RabbitMQ's plugin for Prometheus is, but from this machine alone.
pub fn broker_metrics() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15692)
}
/// `broker.disk_free`: RabbitMQ's `disk_free_limit`.
pub const DISK_FREE: u64 = 50 * 1024 * 1024;
/// `backup.every`: who loses a disk loses an hour at most.
pub const BACKUP_EVERY: Duration = Duration::from_hours(1);
/// `backup.keep`: a day of them.
pub const BACKUP_KEEP: u32 = 24;
/// `broker.consumer_timeout`: RabbitMQ's `consumer_timeout`.
pub const CONSUMER_TIMEOUT: Duration = Duration::from_mins(30);
/// `forward.count`: who scales by traffic needs it.
pub const COUNT: bool = true;
/// `forward.answer_arp`: each node has all service addresses, so no one may say that they are its own.
pub const ANSWER_ARP: bool = false;
/// `forward.ip_forward`: without it what comes from other hosts and goes on to others is lost.
pub const IP_FORWARD: bool = true;
