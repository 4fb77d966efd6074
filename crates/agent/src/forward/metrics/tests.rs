use super::*;
use mainstay_exposition::{TABLE_HEAD, Type};
use std::path::Path;

/// Where the table stands, up to the next heading.
const TABLE: &str = "## Metrics of forwarding\n\n";

#[test]
fn the_page_of_the_metrics_has_a_line_for_each() {
    let rows = FAMILIES.iter().map(|family| family.row());
    let table: String = std::iter::once(TABLE_HEAD.to_owned()).chain(rows).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(TABLE).expect("the page has the heading");
    let (is, after) = rest.split_once("\n## ").expect("another heading follows");
    if std::env::var_os("MAINSTAY_REWRITE").is_some() {
        std::fs::write(&path, format!("{before}{TABLE}{table}\n## {after}")).unwrap();
    } else {
        assert_eq!(is, table, "write it anew: MAINSTAY_REWRITE=1");
    }
}

#[test]
fn names_say_whether_they_only_grow() {
    for family in FAMILIES {
        let name = family.name;
        let grows = family.kind == Type::Counter;
        assert_eq!(name.ends_with("_total"), grows, "{name}");
        assert!(!family.help.ends_with('.'), "{name}");
    }
}

#[test]
fn what_does_not_forward_says_so_and_too_many_instances_are_counted() {
    let text = exposition(None, &Told::default());
    let begin = "# HELP mainstay_forward_up 1 if this node forwards connections to service addresses\n\
                 # TYPE mainstay_forward_up gauge\nmainstay_forward_up 0\n";
    assert!(text.starts_with(begin), "{text}");
    assert!(!text.contains("mainstay_forward_info"), "{text}");
    let service = ServiceName::parse("orders").unwrap();
    let place = |number: usize| Place {
        instance: InstanceId {
            service: service.clone(),
            number: number as u64,
        },
        attempt: mainstay_ids::Attempt(1),
        address: "127.0.0.1:9001".parse().unwrap(),
        through: "10.96.0.1:8080".parse().unwrap(),
    };
    let told = Told {
        back_end: Some(BackEndKind::Nft),
        places: (0..INSTANCES_MAX + 3).map(place).collect(),
        hindrances: vec![ConcernKind::TableFilling],
        ..Told::default()
    };
    let text = exposition(None, &told);
    for line in [
        "mainstay_forward_info{back_end=\"nft\"} 1",
        "mainstay_forward_untold_instances 3",
        "mainstay_forward_hindrance{kind=\"table-filling\"} 1",
        "mainstay_forward_hindrance{kind=\"not-forwarding\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
}
