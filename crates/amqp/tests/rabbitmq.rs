//! What RabbitMQ answered, byte for byte, against what we answer (`conformance/rabbitmq.json`, recorded by
//! `conformance/record.py`).

mod wired;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::BytesMut;
use mainstay_amqp::frame::{ContentHeader, Frame, Kind};
use mainstay_amqp::{Method, Properties};
use wired::Wired;

#[derive(serde::Deserialize)]
struct Recording {
    source: String,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    /// Whether the connection was recorded from its first byte.
    handshake: bool,
    /// Whether the clients said that they hear `basic.cancel`.
    cancel: bool,
    steps: Vec<Step>,
}

#[derive(serde::Deserialize)]
struct Step {
    #[serde(default)]
    wait: Option<u64>,
    #[serde(default)]
    on: String,
    #[serde(default)]
    say: String,
    #[serde(default)]
    send: String,
    get: BTreeMap<String, String>,
}

/// Where we answer otherwise on purpose, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("frame_max too small", SAYS_WHY),
    ("frame_max too large", SAYS_WHY),
    ("frame_max without limit", SAYS_WHY),
    ("channel_max too large", SAYS_WHY),
    ("channel_max without limit", SAYS_WHY),
];

/// Its code has an answer, which a mistake of its own keeps back.
const SAYS_WHY: &str =
    "RabbitMQ says nothing and closes three seconds later; we close with 530 and the reason";

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = hex.strip_suffix("closed").unwrap_or(hex);
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"))
        .collect()
}

/// Names that a server gives, and times, are never the same.
fn mask(bytes: &mut [u8]) {
    for prefix in [&b"amq.gen-"[..], b"amq.ctag-"] {
        let starts: Vec<usize> = bytes
            .windows(prefix.len())
            .enumerate()
            .filter(|(_, window)| *window == prefix)
            .map(|(at, _)| at + prefix.len())
            .collect();
        for start in starts {
            bytes[start..start + 22].fill(b'*');
        }
    }
    let time = b"\x04timeT";
    let times: Vec<usize> = bytes
        .windows(time.len())
        .enumerate()
        .filter(|(_, window)| *window == time)
        .map(|(at, _)| at + time.len())
        .collect();
    for start in times {
        bytes[start..start + 8].fill(b'*');
    }
}

/// Frames in words, so that a difference can be read.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = BytesMut::from(bytes);
    loop {
        match Frame::take(&mut rest, 1 << 30) {
            Ok(Some(frame)) => {
                let what = match frame.kind {
                    Kind::Method => format!("{:?}", Method::read(&frame.payload)),
                    Kind::Header => {
                        let header = ContentHeader::read(&frame.payload).expect("a header");
                        let size = header.body_size;
                        format!(
                            "{size} bytes with {:?}",
                            Properties::read(&header.properties)
                        )
                    }
                    Kind::Body | Kind::Heartbeat => {
                        format!("{:?} {:?}", frame.kind, frame.payload)
                    }
                };
                let _ = writeln!(text, "      {} {what}", frame.channel);
            }
            Ok(None) if rest.is_empty() => return text,
            Ok(None) | Err(_) => {
                let _ = writeln!(text, "      bytes {rest:?}");
                return text;
            }
        }
    }
}

/// `connection.start` says who the server is: only the rest is compared.
fn same(wanted: &[u8], got: &[u8]) -> bool {
    let start = |bytes: &[u8]| bytes.get(7..11) == Some(&[0, 10, 0, 10]);
    if start(wanted) && start(got) {
        return [wanted, got].iter().all(|bytes| {
            bytes
                .windows(14)
                .any(|window| window == b"PLAIN AMQPLAIN" || window == b"AMQPLAIN PLAIN")
        });
    }
    wanted == got
}

fn play(case: &Case, budget: u64) -> Result<(), String> {
    let mut wired = Wired::new(budget);
    let mut names: Vec<&str> = case.steps.iter().map(|step| step.on.as_str()).collect();
    names.push("a");
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.is_empty());
    for name in &names {
        wired.connect(name);
        if !case.handshake {
            wired.shake_hands(name, case.cancel);
        }
    }
    for step in &case.steps {
        if let Some(ms) = step.wait {
            wired.wait(ms);
        } else {
            wired.send(&step.on, &bytes_of(&step.send));
        }
        for name in &names {
            let hex = step.get.get(*name).map_or("", String::as_str);
            let mut wanted = bytes_of(hex);
            let mut got = wired.take(name);
            mask(&mut wanted);
            mask(&mut got);
            if !same(&wanted, &got) {
                return Err(format!(
                    "{}, after `{}`, on {name}:\n    RabbitMQ\n{}    we\n{}",
                    case.name,
                    step.say,
                    shown(&wanted),
                    shown(&got)
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn we_answer_what_rabbitmq_answers_byte_for_byte() {
    let recording = include_str!("conformance/rabbitmq.json");
    let recording: Recording = serde_json::from_str(recording).expect("the recording");
    assert!(recording.source.starts_with("RabbitMQ 3.10.8"));
    let mut wrong = String::new();
    let mut count = 0;
    for case in &recording.cases {
        let otherwise = OTHERWISE
            .iter()
            .any(|(name, why)| *name == case.name && !why.is_empty());
        match play(case, u64::MAX) {
            Ok(()) if otherwise => {
                let _ = writeln!(wrong, "{} is not different any more", case.name);
            }
            Err(_) if otherwise => {}
            Ok(()) => count += 1,
            Err(difference) => {
                let _ = writeln!(wrong, "{difference}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count >= 100, "only {count} cases");
}

#[test]
fn nobody_sees_that_bodies_are_on_disk_alone() {
    let recording = include_str!("conformance/rabbitmq.json");
    let recording: Recording = serde_json::from_str(recording).expect("the recording");
    for case in &recording.cases {
        assert_eq!(play(case, 0), play(case, u64::MAX), "{}", case.name);
    }
}

#[test]
fn it_is_the_same_whatever_pieces_the_bytes_come_in() {
    let recording = include_str!("conformance/rabbitmq.json");
    let recording: Recording = serde_json::from_str(recording).expect("the recording");
    for case in &recording.cases {
        let sends = case.steps.iter().filter(|step| step.wait.is_none());
        let mut answers = Vec::new();
        for piece in [usize::MAX, 1, 3] {
            let mut wired = Wired::new(u64::MAX);
            for name in ["a", "b"] {
                wired.connect(name);
                if !case.handshake {
                    wired.shake_hands(name, case.cancel);
                }
            }
            let mut got = Vec::new();
            for step in sends.clone() {
                for bytes in bytes_of(&step.send).chunks(piece) {
                    wired.send(&step.on, bytes);
                }
                got.extend(["a", "b"].map(|name| wired.take(name)));
            }
            answers.push(got);
        }
        assert_eq!(answers[0], answers[1], "{}", case.name);
        assert_eq!(answers[0], answers[2], "{}", case.name);
    }
}
