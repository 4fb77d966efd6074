//! What is counted, in Prometheus' text format. What means the same as in RabbitMQ's plugin has its name there, so that boards and
//! alerts go on; all else has ours (ADR 46).

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mainstay_amqp::rates::{Counts, Rates};
use mainstay_amqp::{Broker, Death};
use mainstay_exposition::{Family, HelpEnds, Real, Text, families};

use crate::alarm::{LOW_ON_DISK, LOW_ON_MEMORY, Limits, resident};
use crate::house::House;

/// Of how many queues of the whole broker the values are told: with all lines that is 6 MiB, and some 57,000 series. The others are
/// counted in [`UNTOLD`].
const QUEUES_MAX: usize = 4096;

#[rustfmt::skip]
families! {
    IDENTITY = Gauge "rabbitmq_identity_info" ["rabbitmq_node" "rabbitmq_cluster"] "Always 1; boards for RabbitMQ find the node's name here";
    BUILD = Gauge "mainstay_broker_build_info" ["version"] "Always 1; the label tells the program's version";
    UPTIME = Gauge "mainstay_broker_uptime_seconds" [] "Time since the broker's process serves";
    CONNECTIONS = Gauge "rabbitmq_connections" [] "Connections of clients";
    OPENED = Counter "rabbitmq_connections_opened_total" [] "Connections that were accepted";
    REFUSED = Counter "mainstay_broker_logins_refused_total" [] "Attempts to log in that were refused";
    CHANNELS = Gauge "rabbitmq_channels" [] "Channels";
    CONSUMERS = Gauge "rabbitmq_consumers" [] "Consumers";
    QUEUES = Gauge "rabbitmq_queues" [] "Queues";
    UNTOLD = Gauge "mainstay_broker_untold_queues" [] "Queues whose values are left out below, since they end with their connection or there are too many";
    MESSAGES = Gauge "mainstay_broker_messages" ["state"] "Messages in all queues: ready, or delivered and unacked";

    MEMORY = Gauge "rabbitmq_process_resident_memory_bytes" [] "Memory of the broker's process";
    MEMORY_LIMIT = Gauge "rabbitmq_resident_memory_limit_bytes" [] "Publishers wait above so much memory";
    DISK = Gauge "rabbitmq_disk_space_available_bytes" [] "Room on the disk of the log";
    DISK_LIMIT = Gauge "rabbitmq_disk_space_available_limit_bytes" [] "Publishers wait below so much room";
    MEMORY_ALARM = Gauge "rabbitmq_alarms_memory_used_watermark" [] "1 while publishers wait for memory";
    DISK_ALARM = Gauge "rabbitmq_alarms_free_disk_space_watermark" [] "1 while publishers wait for room on the disk, or the log has none";
    LOG_BYTES = Gauge "mainstay_broker_log_bytes" [] "Bytes of the log's files";
    LOG_LIVE = Gauge "mainstay_broker_log_live_bytes" [] "Bytes of them that are needed";
    LOG_SEGMENTS = Gauge "mainstay_broker_log_segments" [] "Files of the log that hold something";
    LOG_SYNCS = Counter "mainstay_broker_log_syncs_total" [] "Syncs of the log";
    LOG_RECORDS = Counter "mainstay_broker_log_records_total" [] "Changes that were written to it";
    BODIES_READ = Counter "mainstay_broker_bodies_read_total" [] "Bodies that were read from disk";
    RECEIVED_BYTES = Counter "mainstay_broker_received_bytes_total" [] "Bytes from clients";
    SENT_BYTES = Counter "mainstay_broker_sent_bytes_total" [] "Bytes to clients";

    RECEIVED = Counter "rabbitmq_global_messages_received_total" [] "Messages from publishers";
    CONFIRMED = Counter "rabbitmq_global_messages_confirmed_total" [] "Publishes that were confirmed";
    RETURNED = Counter "rabbitmq_global_messages_unroutable_returned_total" [] "Messages that went back, since no queue took them";
    DELIVERED = Counter "rabbitmq_global_messages_delivered_total" [] "Messages that were delivered or got";
    REDELIVERED = Counter "rabbitmq_global_messages_redelivered_total" [] "Of these, how many had been delivered before";
    ACKNOWLEDGED = Counter "rabbitmq_global_messages_acknowledged_total" [] "Messages that consumers acknowledged";
    DEAD_EXPIRED = Counter "rabbitmq_global_messages_dead_lettered_expired_total" [] "Dead letters, since their time was over";
    DEAD_REJECTED = Counter "rabbitmq_global_messages_dead_lettered_rejected_total" [] "Dead letters, since a consumer refused them";
    DEAD_MAXLEN = Counter "rabbitmq_global_messages_dead_lettered_maxlen_total" [] "Dead letters, since their queue was full";
    DEAD_LIMIT = Counter "rabbitmq_global_messages_dead_lettered_delivery_limit_total" [] "Dead letters, since they came back too often";

    Q_READY = Gauge "rabbitmq_queue_messages_ready" ["vhost" "queue"] "Messages that wait";
    Q_UNACKED = Gauge "rabbitmq_queue_messages_unacked" ["vhost" "queue"] "Messages that are delivered and not settled";
    Q_MESSAGES = Gauge "rabbitmq_queue_messages" ["vhost" "queue"] "Both together";
    Q_BYTES = Gauge "rabbitmq_queue_messages_ready_bytes" ["vhost" "queue"] "Bytes of the bodies of those that wait";
    Q_CONSUMERS = Gauge "rabbitmq_queue_consumers" ["vhost" "queue"] "Consumers";
    Q_PUBLISHED = Counter "mainstay_queue_published_total" ["vhost" "queue"] "Messages that came in";
    Q_DELIVERED = Counter "mainstay_queue_delivered_total" ["vhost" "queue"] "Messages that were delivered or got";
    Q_REDELIVERED = Counter "mainstay_queue_redelivered_total" ["vhost" "queue"] "Of these, how many had been delivered before";
    Q_ACKNOWLEDGED = Counter "mainstay_queue_acknowledged_total" ["vhost" "queue"] "Messages that were acknowledged, or delivered to somebody who acknowledges nothing";
    Q_DEAD = Counter "mainstay_queue_dead_lettered_total" ["vhost" "queue"] "Messages that died and went to the exchange for dead letters";
    Q_IN = Gauge "mainstay_queue_published_per_second" ["vhost" "queue"] "How fast messages came in during the last five seconds";
    Q_OUT = Gauge "mainstay_queue_delivered_per_second" ["vhost" "queue"] "How fast they were delivered";
    Q_DONE = Gauge "mainstay_queue_acknowledged_per_second" ["vhost" "queue"] "How fast they were acknowledged, or delivered to somebody who acknowledges nothing";
    Q_TO_EMPTY = Gauge "mainstay_queue_seconds_to_empty" ["vhost" "queue"] "When nothing is left, waiting or delivered, if all goes on like this; +Inf if it does not become less";
}

/// A virtual host.
#[derive(Debug, Clone)]
pub(crate) struct OfVhost {
    name: String,
    channels: usize,
    consumers: usize,
    queues: usize,
    ready: usize,
    unacked: usize,
    counts: Counts,
    /// Those that may be told.
    told: Vec<OfQueue>,
}

/// A queue.
#[derive(Debug, Clone)]
struct OfQueue {
    name: String,
    ready: usize,
    ready_bytes: u64,
    unacked: usize,
    consumers: usize,
    counts: Counts,
    rates: Rates,
}

impl OfVhost {
    /// Looks at all of it.
    pub(crate) fn of(broker: &Broker) -> Self {
        let mut seen = Self {
            name: broker.vhost().name().to_owned(),
            channels: broker.channels().count(),
            consumers: 0,
            queues: 0,
            ready: 0,
            unacked: 0,
            counts: broker.counts(),
            told: Vec::new(),
        };
        for queue in broker.queues() {
            seen.queues += 1;
            seen.consumers += queue.consumers;
            seen.ready += queue.ready;
            seen.unacked += queue.unacked;
            // Names of queues that end with their connection are made up, and would grow without end.
            if queue.exclusive.is_none() && seen.told.len() < QUEUES_MAX {
                seen.told.push(OfQueue {
                    name: queue.name.text().into_owned(),
                    ready: queue.ready,
                    ready_bytes: queue.ready_bytes,
                    unacked: queue.unacked,
                    consumers: queue.consumers,
                    counts: *queue.counts,
                    rates: queue.rates,
                });
            }
        }
        seen
    }
}

/// The broker as a whole.
#[derive(Debug, Clone)]
pub(crate) struct OfBroker {
    host: String,
    uptime: Duration,
    connections: usize,
    memory: Option<u64>,
    disk_free: Option<u64>,
    limits: Limits,
    alarm: Option<&'static str>,
    /// Counted in virtual hosts that are gone.
    gone: Counts,
    /// Each a family without labels, with its value.
    plain: Vec<(&'static Family, u64)>,
}

impl OfBroker {
    pub(crate) fn of(house: &House) -> Self {
        let (metrics, gauges) = (&house.metrics, &house.gauges);
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            host: host.trim().to_owned(),
            uptime: house.clock.now().since_start(),
            connections: house.connections.borrow().len(),
            memory: resident(),
            disk_free: house.disk_free.get(),
            limits: house.limits,
            alarm: house.alarm(),
            gone: house.gone.get(),
            plain: vec![
                (&OPENED, metrics.connections.get()),
                (&REFUSED, metrics.logins_refused.get()),
                (&LOG_BYTES, gauges.on_disk.load(Relaxed)),
                (&LOG_LIVE, gauges.live.load(Relaxed)),
                (&LOG_SEGMENTS, gauges.segments.load(Relaxed)),
                (&LOG_SYNCS, gauges.syncs.load(Relaxed)),
                (&LOG_RECORDS, gauges.records.load(Relaxed)),
                (&BODIES_READ, metrics.bodies_read.get()),
                (&RECEIVED_BYTES, metrics.read_bytes.get()),
                (&SENT_BYTES, metrics.written_bytes.get()),
                (&RECEIVED, metrics.published.get()),
                (&CONFIRMED, metrics.confirmed.get()),
                (&RETURNED, metrics.returned.get()),
            ],
        }
    }
}

/// Everything, as text.
pub(crate) fn write(broker: &OfBroker, vhosts: &[OfVhost]) -> String {
    let mut text = Text::new(HelpEnds::Stopped, 16 * 1024);
    write_broker(&mut text, broker);
    write_sums(&mut text, broker.gone, vhosts);
    write_queues(&mut text, vhosts);
    text.into_string()
}

fn write_broker(text: &mut Text, broker: &OfBroker) {
    let node = format!("mainstay@{}", broker.host);
    text.all(&IDENTITY, [([node.as_str(), node.as_str()], 1)]);
    text.all(&BUILD, [([env!("CARGO_PKG_VERSION")], 1)]);
    text.one(&UPTIME, broker.uptime.as_secs_f64());
    text.one(&CONNECTIONS, broker.connections);
    text.all(&MEMORY, broker.memory.map(|bytes| ([], bytes)));
    text.one(&MEMORY_LIMIT, broker.limits.memory_max);
    text.all(&DISK, broker.disk_free.map(|bytes| ([], bytes)));
    text.one(&DISK_LIMIT, broker.limits.disk_free_min);
    let waits = |why| u64::from(broker.alarm == Some(why));
    text.one(&MEMORY_ALARM, waits(LOW_ON_MEMORY));
    text.one(&DISK_ALARM, waits(LOW_ON_DISK));
    for (family, value) in &broker.plain {
        text.one(family, value);
    }
}

/// What is summed over all virtual hosts.
fn write_sums(text: &mut Text, gone: Counts, vhosts: &[OfVhost]) {
    let sum = |of: fn(&OfVhost) -> usize| vhosts.iter().map(of).sum::<usize>();
    text.one(&CHANNELS, sum(|one| one.channels));
    text.one(&CONSUMERS, sum(|one| one.consumers));
    let queues = sum(|one| one.queues);
    text.one(&QUEUES, queues);
    text.one(&UNTOLD, queues - told(vhosts).count());
    let (ready, unacked) = (sum(|one| one.ready), sum(|one| one.unacked));
    text.all(&MESSAGES, [(["ready"], ready), (["unacked"], unacked)]);
    let counts = vhosts.iter().map(|one| one.counts);
    let counts = counts.fold(gone, Counts::plus);
    text.one(&DELIVERED, counts.delivered);
    text.one(&REDELIVERED, counts.redelivered);
    text.one(&ACKNOWLEDGED, counts.acknowledged);
    for (death, count) in Death::ALL.into_iter().zip(counts.dead) {
        text.one(of_death(death), count);
    }
}

fn of_death(death: Death) -> &'static Family {
    match death {
        Death::Expired => &DEAD_EXPIRED,
        Death::Rejected => &DEAD_REJECTED,
        Death::MaxLength => &DEAD_MAXLEN,
        Death::DeliveryLimit => &DEAD_LIMIT,
    }
}

/// The queues that are told, by virtual host and name, so that they stay the same.
fn told(vhosts: &[OfVhost]) -> impl Iterator<Item = (&str, &OfQueue)> {
    let all = vhosts.iter().flat_map(|vhost| {
        let queues = vhost.told.iter();
        queues.map(|queue| (vhost.name.as_str(), queue))
    });
    all.take(QUEUES_MAX)
}

fn write_queues(text: &mut Text, vhosts: &[OfVhost]) {
    /// A family, and its value of a queue.
    type Shows = (&'static Family, fn(&OfQueue) -> u64);
    /// The same for how many there are.
    type Holds = (&'static Family, fn(&OfQueue) -> usize);
    /// The same for rates.
    type Runs = (&'static Family, fn(&OfQueue) -> f64);
    let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    let counted: [Shows; 5] = [
        (&Q_PUBLISHED, |one| one.counts.published),
        (&Q_DELIVERED, |one| one.counts.delivered),
        (&Q_REDELIVERED, |one| one.counts.redelivered),
        (&Q_ACKNOWLEDGED, |one| {
            one.counts.acknowledged + one.counts.auto_acknowledged
        }),
        (&Q_DEAD, |one| one.counts.dead_lettered()),
    ];
    let held: [Holds; 4] = [
        (&Q_READY, |one| one.ready),
        (&Q_UNACKED, |one| one.unacked),
        (&Q_MESSAGES, |one| one.ready + one.unacked),
        (&Q_CONSUMERS, |one| one.consumers),
    ];
    let running: [Runs; 4] = [
        (&Q_IN, |one| one.rates.published),
        (&Q_OUT, |one| one.rates.delivered),
        (&Q_DONE, |one| one.rates.acknowledged),
        (&Q_TO_EMPTY, |one| {
            one.rates.seconds_to_empty(one.ready + one.unacked)
        }),
    ];
    let queues = || told(vhosts).map(|(vhost, one)| ([vhost, one.name.as_str()], one));
    for (family, of) in held {
        text.all(
            family,
            queues().map(|(labels, one)| (labels, size(of(one)))),
        );
    }
    text.all(
        &Q_BYTES,
        queues().map(|(labels, one)| (labels, one.ready_bytes)),
    );
    for (family, of) in counted {
        text.all(family, queues().map(|(labels, one)| (labels, of(one))));
    }
    for (family, of) in running {
        let values = queues().map(|(labels, one)| (labels, Real(of(one))));
        text.all(family, values);
    }
}
