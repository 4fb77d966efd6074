//! A query in any bytes: no panic; an answer is no longer than it may be, is an answer that can be read, and bears the
//! id of the query; and no name of the zone goes on to others.
#![no_main]

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;
use mainstay_agent::names::{Others, Transport, Verdict, Zone, verdict};
use mainstay_model::Directory;
use std::sync::LazyLock;

static ZONE: LazyLock<Zone> = LazyLock::new(|| {
    let listed = |n: u16| {
        format!(
            r#"{{"instance":"many-{n}","address":"10.0.{}.{}:{}"}}"#,
            n / 250,
            n % 250,
            20_000 + n
        )
    };
    let many: Vec<String> = (1..=300).map(listed).collect();
    let text = format!(
        r#"{{"generation":{{"epoch":3,"revision":7}},"services":[
        {{"service":"a","address":"10.96.0.10:8080","instances":[]}},
        {{"service":"s","address":"[fd00::6]:80","instances":[]}},
        {{"service":"many","address":null,"instances":[{}]}}]}}"#,
        many.join(",")
    );
    let directory: Directory = serde_json::from_str(&text).expect("a directory");
    Zone::of(&directory, "10.96.0.53:53".parse().expect("an address"))
});

fuzz_target!(|bytes: &[u8]| {
    for (transport, room) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        for others in [Others::Asked, Others::Refused] {
            match verdict(bytes, transport, &ZONE, others) {
                Verdict::Silence => {}
                Verdict::Answer(answer) => {
                    assert!(answer.len() <= room, "{}", answer.len());
                    assert_eq!(answer[..2], bytes[..2]);
                    assert_ne!(answer[2] & 0x80, 0);
                    let read = Message::from_vec(&answer);
                    assert!(
                        read.is_ok_and(
                            |answer| answer.metadata.message_type == MessageType::Response
                        )
                    );
                }
                Verdict::Forward => {
                    assert_eq!(others, Others::Asked);
                    if let Ok(query) = Message::from_vec(bytes) {
                        let name = query.queries[0].name.to_ascii().to_ascii_lowercase();
                        let name = format!(".{name}");
                        assert!(!name.ends_with(".mainstay.internal."), "{name}");
                    }
                }
            }
        }
    }
});
