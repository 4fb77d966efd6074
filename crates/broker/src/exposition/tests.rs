use super::*;
use std::collections::BTreeSet;
use std::path::Path;

use mainstay_exposition::{TABLE_HEAD, Type};

/// Where the table stands, up to the next heading.
const TABLE: &str = "## Metrics of the broker\n\n";

#[test]
fn the_page_of_the_metrics_has_a_line_for_each() {
    let rows = FAMILIES.iter().map(|family| family.row());
    let table: String = std::iter::once(TABLE_HEAD.to_owned()).chain(rows).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(TABLE).expect("the page has the heading");
    let (text, rest) = rest.split_once("| Name").expect("the page has a table");
    let (is, after) = rest.split_once("\n## ").expect("another heading follows");
    if std::env::var_os("MAINSTAY_REWRITE").is_some() {
        std::fs::write(&path, format!("{before}{TABLE}{text}{table}\n## {after}")).unwrap();
    } else {
        assert_eq!(
            format!("| Name{is}"),
            table,
            "write it anew: MAINSTAY_REWRITE=1"
        );
    }
}

#[test]
fn names_say_whether_they_only_grow() {
    for family in FAMILIES {
        let name = family.name;
        let grows = family.kind == Type::Counter;
        assert_eq!(name.ends_with("_total"), grows, "{name}");
        assert!(!family.help.ends_with('.'), "{name}");
        let ours = name.starts_with("mainstay_") || name.starts_with("rabbitmq_");
        assert!(ours, "{name}");
    }
}

fn broker() -> OfBroker {
    OfBroker {
        host: "node-1".to_owned(),
        uptime: Duration::from_millis(1500),
        connections: 3,
        memory: Some(4096),
        disk_free: None,
        limits: Limits {
            memory_max: 1 << 30,
            disk_free_min: 1 << 20,
        },
        alarm: Some(LOW_ON_DISK),
        gone: Counts {
            delivered: 100,
            ..Counts::default()
        },
        plain: vec![(&CONFIRMED, 17)],
    }
}

fn queue(name: &str, ready: usize) -> OfQueue {
    OfQueue {
        name: name.to_owned(),
        ready,
        ready_bytes: 1024,
        unacked: 2,
        consumers: 1,
        counts: Counts {
            published: 9,
            acknowledged: 3,
            auto_acknowledged: 4,
            ..Counts::default()
        },
        rates: Rates {
            published: 1.0,
            delivered: 5.5,
            acknowledged: 6.0,
        },
    }
}

fn vhost(name: &str, told: Vec<OfQueue>) -> OfVhost {
    OfVhost {
        name: name.to_owned(),
        channels: 2,
        consumers: 1,
        queues: told.len() + 1,
        ready: 5,
        unacked: 2,
        counts: Counts {
            delivered: 7,
            dead: [1, 2, 3, 4],
            ..Counts::default()
        },
        told,
    }
}

#[test]
fn what_is_counted_is_written_with_its_labels() {
    let mut grows = queue("jobs \"\\\n", 8);
    grows.rates.published = 60.0;
    let vhosts = [vhost("/", vec![queue("mail", 8)]), vhost("b", vec![grows])];
    let text = write(&broker(), &vhosts);
    for line in [
        "rabbitmq_identity_info{rabbitmq_node=\"mainstay@node-1\",rabbitmq_cluster=\"mainstay@node-1\"} 1",
        "rabbitmq_connections 3",
        "rabbitmq_channels 4",
        "rabbitmq_queues 4",
        "mainstay_broker_untold_queues 2",
        "mainstay_broker_messages{state=\"ready\"} 10",
        "rabbitmq_alarms_free_disk_space_watermark 1",
        "rabbitmq_alarms_memory_used_watermark 0",
        "rabbitmq_global_messages_confirmed_total 17",
        "rabbitmq_global_messages_delivered_total 114",
        "rabbitmq_global_messages_dead_lettered_maxlen_total 6",
        "rabbitmq_queue_messages{vhost=\"/\",queue=\"mail\"} 10",
        "rabbitmq_queue_messages_ready{vhost=\"b\",queue=\"jobs \\\"\\\\\\n\"} 8",
        "mainstay_queue_acknowledged_total{vhost=\"/\",queue=\"mail\"} 7",
        "mainstay_queue_delivered_per_second{vhost=\"/\",queue=\"mail\"} 5.5",
        "mainstay_queue_seconds_to_empty{vhost=\"/\",queue=\"mail\"} 2",
        "mainstay_queue_seconds_to_empty{vhost=\"b\",queue=\"jobs \\\"\\\\\\n\"} +Inf",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(
        !text.contains("rabbitmq_disk_space_available_bytes "),
        "{text}"
    );
}

#[test]
fn there_are_so_many_series_and_no_more() {
    let queues = |count: usize| {
        (0..count)
            .map(|number| queue(&format!("q{number}"), 0))
            .collect()
    };
    let vhosts = [vhost("/", queues(QUEUES_MAX - 1)), vhost("b", queues(10))];
    let text = write(&broker(), &vhosts);
    let told = text
        .lines()
        .filter(|line| line.starts_with("rabbitmq_queue_messages_ready{"));
    assert_eq!(told.count(), QUEUES_MAX);
    let left_out = format!("mainstay_broker_untold_queues {}", 10 - 1 + 2);
    assert!(text.lines().any(|line| line == left_out), "{left_out}");
    assert!(text.len() < 6 << 20, "{}", text.len());
}

#[test]
fn each_family_has_one_head() {
    let text = write(&broker(), &[vhost("/", vec![queue("mail", 1)])]);
    let heads: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let distinct: BTreeSet<&&str> = heads.iter().collect();
    assert_eq!(heads.len(), distinct.len(), "{heads:?}");
}
