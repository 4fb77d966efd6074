use super::*;
use mainstay_exposition::{TABLE_HEAD, Type};
use std::path::Path;

/// Where the table stands; below it, to the end of the page, nothing else does.
const TABLE: &str = "## Metrics of the gateway\n\n";

#[test]
fn the_page_of_the_metrics_has_a_line_for_each() {
    let rows = FAMILIES.iter().map(|family| family.row());
    let table: String = std::iter::once(TABLE_HEAD.to_owned()).chain(rows).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, is) = page.split_once(TABLE).expect("the page has the heading");
    if std::env::var_os("MAINSTAY_REWRITE").is_some() {
        std::fs::write(&path, format!("{before}{TABLE}{table}")).unwrap();
    } else {
        assert_eq!(is, table, "write it anew: MAINSTAY_REWRITE=1");
    }
}

#[test]
fn names_say_their_unit_and_whether_they_only_grow() {
    for family in FAMILIES {
        let name = family.name;
        assert_eq!(
            name.ends_with("_total"),
            family.kind == Type::Counter,
            "{name}"
        );
        if family.kind == Type::Histogram {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        assert!(
            !family.help.ends_with('.') && !family.help.contains('\n'),
            "{name}"
        );
    }
}

#[test]
fn a_histogram_is_cumulative_and_ends_with_all() {
    let histogram = crate::metrics::Histogram::default();
    for ms in [1, 3, 100, 60_000] {
        histogram.record(std::time::Duration::from_millis(ms));
    }
    let mut text = Text::new(HelpEnds::Stopped, 0);
    let counts = Counts::of(std::iter::once(&histogram));
    text.histogram(&S_TOTAL, &["orders"], &buckets(&counts));
    let text = text.into_string();
    let name = "mainstay_service_request_duration_seconds";
    for line in [
        format!("{name}_bucket{{service=\"orders\",le=\"0.0005\"}} 0"),
        format!("{name}_bucket{{service=\"orders\",le=\"0.001\"}} 1"),
        format!("{name}_bucket{{service=\"orders\",le=\"0.005\"}} 2"),
        format!("{name}_bucket{{service=\"orders\",le=\"40.96\"}} 3"),
        format!("{name}_bucket{{service=\"orders\",le=\"+Inf\"}} 4"),
        format!("{name}_sum{{service=\"orders\"}} 60.104"),
        format!("{name}_count{{service=\"orders\"}} 4"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}
