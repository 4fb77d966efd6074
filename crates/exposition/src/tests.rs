use alloc::vec;

use super::*;
use crate::families;

families! {
    UP = Gauge "app_up" [] "1 if it serves";
    SEEN = Counter "app_seen_total" ["queue" "kind"] "What was seen";
    TOOK = Histogram "app_took_seconds" ["queue"] "What it took";
}

fn stopped() -> Text {
    Text::new(HelpEnds::Stopped, 0)
}

#[test]
fn a_family_has_its_head_once_and_a_line_for_each_value() {
    let mut text = stopped();
    text.one(&UP, 1);
    text.all(&SEEN, [(["a", "x"], 7), (["b", "y"], 8)]);
    assert_eq!(
        text.into_string(),
        "# HELP app_up 1 if it serves.\n# TYPE app_up gauge\napp_up 1\n\
         # HELP app_seen_total What was seen.\n# TYPE app_seen_total counter\n\
         app_seen_total{queue=\"a\",kind=\"x\"} 7\napp_seen_total{queue=\"b\",kind=\"y\"} 8\n"
    );
}

#[test]
fn a_family_without_values_is_left_out_where_that_is_wanted() {
    let mut text = Text::new(HelpEnds::Bare, 0);
    text.all(&SEEN, core::iter::empty::<([&str; 2], u64)>());
    text.each(&TOOK, &[] as &[()], |()| (vec![], 0));
    assert_eq!(
        text.into_string(),
        "# HELP app_took_seconds What it took\n# TYPE app_took_seconds histogram\n"
    );
}

#[test]
fn words_are_the_last_label() {
    let mut text = stopped();
    text.each_word(&SEEN, &["a"], |name| {
        (vec![*name], vec![("x", 1), ("y", 2)])
    });
    let text = text.into_string();
    assert!(
        text.ends_with(
            "app_seen_total{queue=\"a\",kind=\"x\"} 1\napp_seen_total{queue=\"a\",kind=\"y\"} 2\n"
        ),
        "{text}"
    );
}

#[test]
fn no_label_breaks_out_of_its_line() {
    for (label, written) in [
        ("", ""),
        ("plain", "plain"),
        ("\"", "\\\""),
        ("a\\b\"c\nd", "a\\\\b\\\"c\\nd"),
        ("\n\n", "\\n\\n"),
        ("größe\\", "größe\\\\"),
    ] {
        let mut text = stopped();
        text.value(&SEEN, &[label, "k"], 1);
        let wanted = alloc::format!("app_seen_total{{queue=\"{written}\",kind=\"k\"}} 1\n");
        assert_eq!(text.into_string(), wanted);
    }
}

#[test]
fn a_histogram_is_cumulative_and_ends_with_all() {
    let mut text = stopped();
    let buckets = Buckets {
        cumulative: vec![("0.5", 1), ("1", 3)],
        count: 4,
        sum: 60.104,
    };
    text.histogram(&TOOK, &["q"], &buckets);
    assert_eq!(
        text.into_string(),
        "app_took_seconds_bucket{queue=\"q\",le=\"0.5\"} 1\n\
         app_took_seconds_bucket{queue=\"q\",le=\"1\"} 3\n\
         app_took_seconds_bucket{queue=\"q\",le=\"+Inf\"} 4\n\
         app_took_seconds_sum{queue=\"q\"} 60.104\n\
         app_took_seconds_count{queue=\"q\"} 4\n"
    );
}

#[test]
fn seconds_keep_their_milliseconds() {
    assert_eq!(alloc::format!("{}", Seconds { ms: 1234 }), "1.234");
    assert_eq!(alloc::format!("{}", Seconds { ms: 7 }), "0.007");
}

#[test]
fn what_is_infinite_is_written_as_collectors_read_it() {
    let written = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 2.5, 0.0]
        .map(|value| alloc::format!("{}", Real(value)));
    assert_eq!(written, ["+Inf", "-Inf", "NaN", "2.5", "0"]);
}

#[test]
fn all_families_are_known_and_have_a_row() {
    let rows: Vec<String> = FAMILIES.iter().map(|family| family.row()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[1],
        "| `app_seen_total` | counter | `queue`, `kind` | What was seen |\n"
    );
}
