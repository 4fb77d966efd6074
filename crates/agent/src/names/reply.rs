//! What becomes of one query: nothing, an answer from the zone, or a way on to others.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::DNSClass;
use hickory_proto::serialize::binary::BinEncodable;

use super::wire::{self, Code, Question, Unreadable};
use super::zone::{Found, Missing, Zone};

/// What we take by UDP, and send at most: what passes every link in one piece (DNS flag day 2020).
pub(super) const UDP_LEN: u16 = 1232;

/// What every client takes by UDP (RFC 1035, 4.2.1).
const UDP_LEN_MIN: u16 = 512;

/// Whole transfers of a zone, of which there is no need, and which are long.
const TRANSFERS: [u16; 2] = [251, 252];

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: what is longer than the client takes is cut.
    Udp,
    /// On a connection: up to 65,535 bytes.
    Tcp,
}

/// Whether somebody can be asked for names that are not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Somebody can.
    Asked,
    /// Nobody: they are refused, so that the client asks its next server.
    Refused,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is said.
    Silence,
    /// This is said.
    Answer(Vec<u8>),
    /// It is asked of others, as it came. Never a name of the zone.
    Forward,
}

/// Decides what becomes of a query. Whatever it is, what is sent is bounded: by `UDP_LEN` in a
/// datagram.
pub fn verdict(message: &[u8], transport: Transport, zone: &Zone, others: Others) -> Verdict {
    let question = match Question::read(message) {
        Ok(question) => question,
        Err(Unreadable::Silence) => return Verdict::Silence,
        Err(Unreadable::Told(code)) => return Verdict::Answer(wire::refuse_unread(message, code)),
    };
    if TRANSFERS.contains(&question.kind) {
        return Verdict::Answer(question.refuse(Code::Refused));
    }
    let Some(labels) = Zone::within(question.labels()) else {
        return match others {
            Others::Asked => Verdict::Forward,
            Others::Refused => Verdict::Answer(question.refuse(Code::Refused)),
        };
    };
    let answer = Message::from_vec(message)
        .map_err(|_| Code::FormatError)
        .and_then(|query| own(&query, &labels, transport, zone, others));
    Verdict::Answer(answer.unwrap_or_else(|code| question.refuse(code)))
}

/// The answer to a query for a name of the zone.
fn own(
    query: &Message,
    labels: &[Vec<u8>],
    transport: Transport,
    zone: &Zone,
    others: Others,
) -> Result<Vec<u8>, Code> {
    let asked = query.queries.first().ok_or(Code::FormatError)?;
    let mut answer = Message::new(query.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_desired = query.recursion_desired;
    answer.metadata.recursion_available = others == Others::Asked;
    answer.metadata.checking_disabled = query.checking_disabled;
    answer.add_query(asked.clone());
    if let Some(edns) = &query.edns {
        let mut own = Edns::new();
        own.set_max_payload(UDP_LEN);
        own.set_dnssec_ok(edns.flags().dnssec_ok);
        answer.set_edns(own);
        if edns.version() > 0 {
            answer.metadata.response_code = ResponseCode::BADVERS;
            return written(&answer, query, transport);
        }
    }
    if !matches!(asked.query_class, DNSClass::IN | DNSClass::ANY) {
        answer.metadata.response_code = ResponseCode::Refused;
        return written(&answer, query, transport);
    }
    let turn = usize::from(query.id);
    match zone.look_up(&asked.name, labels, asked.query_type, turn) {
        Ok(Found {
            answers,
            additional,
        }) => {
            if answers.is_empty() {
                answer.add_authority(zone.denial().map_err(|_| Code::ServerFailure)?);
            }
            answer.metadata.authoritative = true;
            answer.add_answers(answers).add_additionals(additional);
        }
        Err(Missing::Name) => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.metadata.authoritative = true;
            answer.add_authority(zone.denial().map_err(|_| Code::ServerFailure)?);
        }
        Err(Missing::Everything) => answer.metadata.response_code = ResponseCode::ServFail,
    }
    written(&answer, query, transport)
}

/// The bytes, as many as go in one piece. What is additional is left out first (RFC 2181, 9: that is no
/// truncation); if that is not enough, the client is told to come by TCP.
fn written(answer: &Message, query: &Message, transport: Transport) -> Result<Vec<u8>, Code> {
    let room = usize::from(room(query, transport));
    let bytes = |message: &Message| message.to_bytes().map_err(|_| Code::ServerFailure);
    let whole = bytes(answer)?;
    if whole.len() <= room {
        return Ok(whole);
    }
    let mut bare = answer.clone();
    bare.additionals.clear();
    let bare = bytes(&bare)?;
    if bare.len() <= room {
        return Ok(bare);
    }
    bytes(&answer.truncate())
}

fn room(query: &Message, transport: Transport) -> u16 {
    match (transport, &query.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_LEN_MIN, UDP_LEN),
        (Transport::Udp, None) => UDP_LEN_MIN,
    }
}

/// How long an answer may be that is passed on to whoever sent this datagram; what comes from others may
/// be as long as he said.
pub(super) fn room_of(message: &[u8]) -> usize {
    let said = Message::from_vec(message).ok().and_then(|query| query.edns);
    usize::from(said.map_or(UDP_LEN_MIN, |edns| edns.max_payload().max(UDP_LEN_MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::{Name, RData, RecordType};
    use mainstay_ids::{Epoch, Generation};
    use mainstay_model::directory::{Directory, Listed, Listing};
    use mainstay_model::{Weight, routing::Unavailable};
    use std::net::{Ipv4Addr, SocketAddr};

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn listing(name: &str, address: Option<&str>, instances: u16) -> Listing {
        let service: mainstay_ids::ServiceName = name.parse().expect("a name");
        Listing {
            service,
            address: address.map(at),
            instances: (1..=instances)
                .map(|n| Listed {
                    instance: format!("{name}-{n}").parse().expect("an id"),
                    address: (Ipv4Addr::from(0x0a00_0000 + u32::from(n)), 20_000 + n).into(),
                    weight: Weight::ORDINARY,
                })
                .collect(),
            unavailable: (instances == 0).then_some(Unavailable::Starting),
        }
    }

    fn zone() -> Zone {
        let directory = Directory {
            generation: Generation::first(Epoch(3)),
            services: vec![
                listing("many", None, 500),
                listing("none", None, 0),
                listing("orders", None, 3),
                listing("pay", Some("10.96.0.10:8080"), 2),
                listing("six", Some("[fd00::6]:80"), 1),
            ],
        };
        Zone::of(&directory, at("10.96.0.53:53"))
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        query
    }

    fn ask_by(query: &Message, transport: Transport) -> Message {
        let bytes = query.to_vec().expect("a message");
        let Verdict::Answer(answer) = verdict(&bytes, transport, &zone(), Others::Asked) else {
            panic!("{query:?} is not answered");
        };
        Message::from_vec(&answer).expect("an answer")
    }

    fn ask(name: &str, kind: RecordType) -> Message {
        ask_by(&query(name, kind), Transport::Udp)
    }

    fn data(answer: &Message) -> Vec<String> {
        let answers = answer.answers.iter();
        answers.map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn a_service_with_an_address_is_found_there_and_its_port_by_srv() {
        let answer = ask("Pay.Mainstay.INTERNAL.", RecordType::A);
        assert_eq!(data(&answer), ["10.96.0.10"]);
        assert_eq!(answer.answers[0].ttl, TTL_SECONDS);
        assert_eq!(answer.answers[0].name.to_string(), "Pay.Mainstay.INTERNAL.");
        assert!(answer.authoritative && answer.recursion_available && answer.recursion_desired);
        let answer = ask("pay.mainstay.internal.", RecordType::SRV);
        assert_eq!(data(&answer), ["0 0 8080 pay.mainstay.internal."]);
        assert_eq!(answer.additionals.len(), 1);
        assert_eq!(
            data(&ask("six.mainstay.internal.", RecordType::AAAA)),
            ["fd00::6"]
        );
    }

    const TTL_SECONDS: u32 = 5;

    #[test]
    fn a_service_without_an_address_is_found_at_its_instances_each_time_another_first() {
        let mut asked = query("orders.mainstay.internal.", RecordType::A);
        let mut firsts = Vec::new();
        for id in 0..3 {
            asked.metadata.id = id;
            let answer = ask_by(&asked, Transport::Udp);
            assert_eq!(answer.answers.len(), 3);
            firsts.push(data(&answer)[0].clone());
        }
        firsts.sort();
        assert_eq!(firsts, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let answer = ask("orders.mainstay.internal.", RecordType::SRV);
        assert!(
            data(&answer).contains(&"0 100 20002 orders-2.orders.mainstay.internal.".to_owned())
        );
        assert_eq!(answer.additionals.len(), 3);
        let answer = ask("orders-2.orders.mainstay.internal.", RecordType::A);
        assert_eq!(data(&answer), ["10.0.0.2"]);
    }

    #[test]
    fn a_name_without_such_records_is_told_from_one_that_does_not_exist() {
        for (name, kind) in [
            ("pay.mainstay.internal.", RecordType::AAAA),
            ("pay.mainstay.internal.", RecordType::TXT),
            ("none.mainstay.internal.", RecordType::A),
            ("mainstay.internal.", RecordType::A),
            ("dns.mainstay.internal.", RecordType::A),
        ] {
            let answer = ask(name, kind);
            assert_eq!(answer.response_code, ResponseCode::NoError, "{name}");
            assert!(answer.answers.is_empty() && answer.authoritative, "{name}");
            assert_denied(&answer);
        }
        for name in [
            "nobody.mainstay.internal.",
            "pay-1.pay.mainstay.internal.",
            "a.b.c.mainstay.internal.",
            "orders-4.orders.mainstay.internal.",
        ] {
            let answer = ask(name, RecordType::A);
            assert_eq!(answer.response_code, ResponseCode::NXDomain, "{name}");
            assert_denied(&answer);
        }
    }

    fn assert_denied(answer: &Message) {
        let [soa] = answer.authorities.as_slice() else {
            panic!("{answer:?}");
        };
        let RData::SOA(data) = &soa.data else {
            panic!("{soa:?}");
        };
        assert_eq!((soa.ttl, data.minimum), (TTL_SECONDS, TTL_SECONDS));
        assert_eq!(soa.name.to_string(), "mainstay.internal.");
    }

    #[test]
    fn the_zone_has_a_server_with_an_address() {
        let ns = ask("mainstay.internal.", RecordType::NS);
        assert_eq!(data(&ns), ["ns.dns.mainstay.internal."]);
        assert_eq!(
            data(&ask("ns.dns.mainstay.internal.", RecordType::A)),
            ["10.96.0.53"]
        );
        assert_eq!(ask("mainstay.internal.", RecordType::SOA).answers.len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_cut_by_udp_and_whole_by_tcp() {
        let mut asked = query("many.mainstay.internal.", RecordType::A);
        let plain = ask_by(&asked, Transport::Udp);
        assert!(plain.truncation && plain.answers.is_empty());
        let mut edns = Edns::new();
        edns.set_max_payload(65_000);
        asked.set_edns(edns);
        let large = ask_by(&asked, Transport::Udp);
        assert!(large.truncation && large.edns.is_some());
        let whole = ask_by(&asked, Transport::Tcp);
        assert!(!whole.truncation);
        assert_eq!(whole.answers.len(), 500);
    }

    #[test]
    fn what_is_additional_is_left_out_before_anything_is_cut() {
        // The names of the instances with their addresses make it longer than a datagram.
        let zone = Zone::of(
            &Directory {
                generation: Generation::first(Epoch(3)),
                services: vec![listing("some", None, 8)],
            },
            at("10.96.0.53:53"),
        );
        let asked = query("some.mainstay.internal.", RecordType::SRV);
        let bytes = asked.to_vec().expect("a message");
        let Verdict::Answer(answer) = verdict(&bytes, Transport::Udp, &zone, Others::Asked) else {
            panic!("answered");
        };
        assert!(answer.len() <= 512, "{}", answer.len());
        let answer = Message::from_vec(&answer).expect("an answer");
        assert_eq!((answer.answers.len(), answer.additionals.len()), (8, 0));
        assert!(!answer.truncation);
    }

    #[test]
    fn other_names_go_on_and_ours_never_do() {
        let of = |name: &str, others| {
            let bytes = query(name, RecordType::A).to_vec().expect("a message");
            verdict(&bytes, Transport::Udp, &zone(), others)
        };
        for name in [
            "example.com.",
            "xmainstay.internal.",
            "internal.",
            ".",
            "mainstay.internal.example.",
        ] {
            assert_eq!(of(name, Others::Asked), Verdict::Forward, "{name}");
            let Verdict::Answer(refused) = of(name, Others::Refused) else {
                panic!("{name} is refused");
            };
            let refused = Message::from_vec(&refused).expect("an answer");
            assert_eq!(refused.response_code, ResponseCode::Refused);
        }
        for name in [
            "x.mainstay.internal.",
            "MAINSTAY.internal.",
            "a.b.mainstay.Internal.",
        ] {
            assert!(
                matches!(of(name, Others::Asked), Verdict::Answer(_)),
                "{name}"
            );
        }
    }

    #[test]
    fn before_anything_is_known_nothing_is_denied() {
        let bytes = query("pay.mainstay.internal.", RecordType::A)
            .to_vec()
            .expect("a message");
        let unknown = Zone::unknown(at("10.96.0.53:53"));
        let Verdict::Answer(answer) = verdict(&bytes, Transport::Udp, &unknown, Others::Asked)
        else {
            panic!("answered");
        };
        let answer = Message::from_vec(&answer).expect("an answer");
        assert_eq!(answer.response_code, ResponseCode::ServFail);
        assert!(answer.authorities.is_empty());
    }

    #[test]
    fn what_is_odd_is_refused_by_its_own_code() {
        let code = |query: &Message| ask_by(query, Transport::Udp).response_code;
        let mut chaos = query("pay.mainstay.internal.", RecordType::A);
        chaos.queries[0].query_class = DNSClass::CH;
        assert_eq!(code(&chaos), ResponseCode::Refused);
        assert_eq!(
            code(&query("mainstay.internal.", RecordType::AXFR)),
            ResponseCode::Refused
        );
        let mut update = query("pay.mainstay.internal.", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(code(&update), ResponseCode::NotImp);
        let mut newer = query("pay.mainstay.internal.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_version(1);
        newer.set_edns(edns);
        let answer = ask_by(&newer, Transport::Udp);
        assert_eq!(answer.edns.expect("as asked").rcode_high(), 1);
        let any = ask("pay.mainstay.internal.", RecordType::ANY);
        assert_eq!(any.answers.len(), 1);
    }

    /// Every cut, every changed byte of a query for a name of ours: never a panic, never sent on, never
    /// more than a datagram.
    #[test]
    fn cut_and_broken_queries_are_survived() {
        let mut whole = query("orders.mainstay.internal.", RecordType::SRV);
        whole.set_edns(Edns::new());
        let whole = whole.to_vec().expect("a message");
        let zone = zone();
        let check = |bytes: &[u8]| match verdict(bytes, Transport::Udp, &zone, Others::Asked) {
            Verdict::Answer(answer) => assert!(answer.len() <= usize::from(UDP_LEN)),
            Verdict::Silence | Verdict::Forward => {}
        };
        for cut in 0..whole.len() {
            check(&whole[..cut]);
        }
        for at in 0..whole.len() {
            for value in 0..=u8::MAX {
                let mut broken = whole.clone();
                broken[at] = value;
                check(&broken);
            }
        }
        // A record behind the question whose name points to itself.
        let mut looping = query("orders.mainstay.internal.", RecordType::A)
            .to_vec()
            .expect("a message");
        looping[11] = 1;
        let here = u8::try_from(looping.len()).expect("short");
        looping.extend_from_slice(&[0xc0, here, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        let Verdict::Answer(answer) = verdict(&looping, Transport::Udp, &zone, Others::Asked)
        else {
            panic!("it is answered");
        };
        assert_eq!(answer[3] & 15, Code::FormatError as u8);
    }
}
