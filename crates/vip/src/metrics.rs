//! What is counted, in Prometheus' text format, version 0.0.4: asked for on the socket, shown by the gateway beside its own.

use std::fmt::Display;

use mainstay_exposition::{Family, HelpEnds, Seconds, Text, Type};

use crate::view::{Shown, ShownVip, State};

/// A family, and who writes its values.
struct Row {
    family: Family,
    write: fn(&mut Values<'_>, &Shown),
}

/// Every family, in the order in which they are written. Labels are names of the node's file and words of ours.
const ROWS: &[Row] = &[
    Row {
        family: Family {
            name: "mainstay_vip_real_time",
            kind: Type::Gauge,
            labels: &[],
            help: "1 if the process that holds floating addresses is scheduled in real time",
        },
        write: |values, shown| values.put(&[], u8::from(shown.real_time.is_ok())),
    },
    Row {
        family: Family {
            name: "mainstay_vip_state",
            kind: Type::Gauge,
            labels: &["vip", "state"],
            help: "1 for the state that it is in: master, backup, fault (its interface does not serve) or stop",
        },
        write: |values, shown| {
            for vip in &shown.vips {
                for state in State::ALL {
                    let is = u8::from(vip.state == state);
                    values.put(&[vip.name.as_str(), state.word()], is);
                }
            }
        },
    },
    Row {
        family: Family {
            name: "mainstay_vip_addresses_held",
            kind: Type::Gauge,
            labels: &["vip"],
            help: "Addresses that are on this machine now",
        },
        write: |values, shown| each(values, shown, |vip| vip.held),
    },
    Row {
        family: Family {
            name: "mainstay_vip_offered",
            kind: Type::Gauge,
            labels: &["vip"],
            help: "1 while it holds the addresses and offers them to others",
        },
        write: |values, shown| each(values, shown, |vip| u8::from(vip.offers)),
    },
    Row {
        family: Family {
            name: "mainstay_vip_priority",
            kind: Type::Gauge,
            labels: &["vip"],
            help: "The priority that counts now",
        },
        write: |values, shown| each(values, shown, |vip| vip.priority),
    },
    Row {
        family: Family {
            name: "mainstay_vip_track_up",
            kind: Type::Gauge,
            labels: &["vip", "number", "track"],
            help: "1 if what it depends on works",
        },
        write: |values, shown| {
            for vip in &shown.vips {
                // Two may be called alike.
                for (number, track) in (1..).zip(&vip.tracks) {
                    let number: u32 = number;
                    let labels = [vip.name.as_str(), &number.to_string(), &track.what];
                    values.put(&labels, u8::from(track.works));
                }
            }
        },
    },
    Row {
        family: Family {
            name: "mainstay_vip_advert_interval_seconds",
            kind: Type::Gauge,
            labels: &["vip"],
            help: "Time between two adverts",
        },
        write: |values, shown| each(values, shown, |vip| Seconds { ms: vip.advert_ms }),
    },
    Row {
        family: Family {
            name: "mainstay_vip_last_advert_age_seconds",
            kind: Type::Gauge,
            labels: &["vip"],
            help: "Time since an advert of another machine was heard; absent before the first",
        },
        write: |values, shown| {
            for vip in &shown.vips {
                if let Some(age) = vip.advert_age_ms {
                    values.put(&[vip.name.as_str()], Seconds { ms: age });
                }
            }
        },
    },
    Row {
        family: Family {
            name: "mainstay_vip_adverts_sent_total",
            kind: Type::Counter,
            labels: &["vip"],
            help: "Adverts that were sent",
        },
        write: |values, shown| each(values, shown, |vip| vip.counts.sent),
    },
    Row {
        family: Family {
            name: "mainstay_vip_adverts_heard_total",
            kind: Type::Counter,
            labels: &["vip"],
            help: "Adverts of others that were believed",
        },
        write: |values, shown| each(values, shown, |vip| vip.counts.heard),
    },
    Row {
        family: Family {
            name: "mainstay_vip_packets_refused_total",
            kind: Type::Counter,
            labels: &["vip", "reason"],
            help: "Packets for it that were not believed",
        },
        write: |values, shown| {
            for vip in &shown.vips {
                for refused in &vip.counts.refused_by {
                    let labels = [vip.name.as_str(), refused.reason.as_str()];
                    values.put(&labels, refused.count);
                }
            }
        },
    },
    Row {
        family: Family {
            name: "mainstay_vip_transitions_total",
            kind: Type::Counter,
            labels: &["vip", "state"],
            help: "How often it entered a state",
        },
        write: |values, shown| {
            for vip in &shown.vips {
                for entered in &vip.counts.entered {
                    let labels = [vip.name.as_str(), entered.state.word()];
                    values.put(&labels, entered.count);
                }
            }
        },
    },
    Row {
        family: Family {
            name: "mainstay_vip_stalls_total",
            kind: Type::Counter,
            labels: &["vip"],
            help: "How often the process slept when it should have spoken or listened",
        },
        write: |values, shown| each(values, shown, |vip| vip.counts.stalls),
    },
];

fn each<T: Display>(values: &mut Values<'_>, shown: &Shown, value: impl Fn(&ShownVip) -> T) {
    for vip in &shown.vips {
        values.put(&[vip.name.as_str()], value(vip));
    }
}

/// The values of one family, as they are written.
struct Values<'t> {
    family: &'static Family,
    text: &'t mut Text,
}

impl Values<'_> {
    fn put(&mut self, labels: &[&str], value: impl Display) {
        self.text.value(self.family, labels, value);
    }
}

/// All of it.
pub(crate) fn text(shown: &Shown) -> String {
    let mut text = Text::new(HelpEnds::Stopped, 0);
    for Row { family, write } in ROWS {
        text.begin(family);
        let text = &mut text;
        write(&mut Values { family, text }, shown);
    }
    text.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusals::Reason;
    use crate::view::{ShownCounts, ShownEntered, ShownRefused, ShownTrack};
    use mainstay_exposition::TABLE_HEAD;
    use mainstay_ids::VipName;
    use std::path::Path;

    /// Between this heading and the next one stands the table.
    const HEADING: &str = "## Floating addresses\n\n";
    const NEXT: &str = "\n## Metrics of forwarding\n";

    #[test]
    fn the_page_of_the_metrics_has_a_line_for_each() {
        let mut table = TABLE_HEAD.to_owned();
        for Row { family, .. } in ROWS {
            table.push_str(&family.row());
            let name = family.name;
            assert_eq!(
                name.ends_with("_total"),
                family.kind == Type::Counter,
                "{name}"
            );
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(HEADING).expect("the page has the heading");
        let (_, after) = rest
            .split_once(NEXT)
            .expect("the page has the next heading");
        let text = rest.split_once("| Name").expect("the page has a table").0;
        let wanted = format!("{before}{HEADING}{text}{table}{NEXT}{after}");
        if std::env::var_os("MAINSTAY_REWRITE").is_some() {
            std::fs::write(&path, wanted).unwrap();
        } else {
            assert!(page == wanted, "write it anew: MAINSTAY_REWRITE=1");
        }
    }

    #[test]
    fn what_is_shown_is_written_with_its_labels() {
        let vip = ShownVip {
            name: VipName::parse("entry").unwrap(),
            state: State::Master,
            offers: false,
            leaves: false,
            fault: None,
            addresses: vec!["10.0.0.100/32".to_owned()],
            held: 1,
            interface: "eth0".to_owned(),
            vrid: 51,
            priority: 150,
            advert_ms: 100,
            advert_age_ms: Some(1234),
            master: None,
            peers: vec![],
            tracks: vec![ShownTrack {
                what: "/bin/\"a\\b\"".to_owned(),
                works: true,
            }],
            counts: ShownCounts {
                heard: 7,
                sent: 8,
                took_over: 1,
                gave_way: 0,
                stalls: 0,
                refused: 3,
                refused_by: vec![ShownRefused {
                    reason: Reason::HopLimit,
                    count: 3,
                }],
                entered: vec![ShownEntered {
                    state: State::Master,
                    count: 1,
                }],
            },
            past: vec![],
        };
        let text = text(&Shown {
            real_time: Err("refused".to_owned()),
            vips: vec![vip],
        });
        for line in [
            "# HELP mainstay_vip_real_time 1 if the process that holds floating addresses is scheduled in real time.",
            "# TYPE mainstay_vip_state gauge",
            "mainstay_vip_real_time 0",
            "mainstay_vip_state{vip=\"entry\",state=\"master\"} 1",
            "mainstay_vip_state{vip=\"entry\",state=\"fault\"} 0",
            "mainstay_vip_addresses_held{vip=\"entry\"} 1",
            "mainstay_vip_last_advert_age_seconds{vip=\"entry\"} 1.234",
            "mainstay_vip_track_up{vip=\"entry\",number=\"1\",track=\"/bin/\\\"a\\\\b\\\"\"} 1",
            "mainstay_vip_packets_refused_total{vip=\"entry\",reason=\"hop_limit\"} 3",
            "mainstay_vip_transitions_total{vip=\"entry\",state=\"master\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
    }
}
