//! The cases of `conformance/election.toml`: what a router does, step by step.

#![allow(clippy::unwrap_used, reason = "tests")]

use core::net::IpAddr;
use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_vrrp::{
    Action, Actions, Advert, Checksum, Envelope, GROUP_V4, HOP_LIMIT, Handover, Health, Input,
    Interval, LEN_MAX, Note, Oddity, Options, Outgoing, Preempt, Priority, REFRESH, Reach, Role,
    Router, Version, Vrid, Why,
};

const CASES: &str = include_str!("conformance/election.toml");
const OWN: [u8; 4] = [10, 0, 0, 5];
const VIRTUAL: [u8; 4] = [10, 0, 0, 100];

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[expect(dead_code, reason = "for the reader")]
    rfc: String,
    version: Option<u8>,
    priority: Option<u8>,
    interval: Option<u16>,
    preempt: Option<toml::Value>,
    handover: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    peers: Vec<IpAddr>,
    refresh: Option<bool>,
    #[serde(default)]
    start: u64,
    steps: Vec<String>,
}

impl Case {
    fn options(&self) -> Options {
        let preempt = match &self.preempt {
            Some(toml::Value::Integer(ms)) => {
                Preempt::After(Duration::from_millis(u64::try_from(*ms).unwrap()))
            }
            Some(toml::Value::String(word)) if word == "never" => Preempt::Never,
            None => Preempt::Always,
            Some(other) => panic!("{other}"),
        };
        Options {
            version: version(self.version.unwrap_or(3)),
            vrid: Vrid::new(51).unwrap(),
            priority: Priority(self.priority.unwrap_or(100)),
            interval: interval(self.interval.unwrap_or(1000)),
            addresses: vec![VIRTUAL.into()],
            preempt,
            handover: match self.handover.as_deref() {
                Some("at-once") => Handover::AtOnce,
                None => Handover::AfterSkew,
                Some(other) => panic!("{other}"),
            },
            checksum: self
                .checksum
                .as_deref()
                .map_or(Checksum::default(), checksum),
            peers: self.peers.clone(),
            refresh: self.refresh.unwrap_or(true).then_some(REFRESH),
        }
    }
}

fn version(number: u8) -> Version {
    match number {
        2 => Version::V2,
        3 => Version::V3,
        other => panic!("{other}"),
    }
}

fn checksum(word: &str) -> Checksum {
    assert_eq!(word, "alone");
    Checksum::MessageAlone
}

fn interval(ms: u16) -> Interval {
    Interval::from_centiseconds(ms / 10).unwrap()
}

fn instant(ms: &str) -> Instant {
    let ms: f64 = ms.parse().unwrap();
    Instant::from_start(Duration::from_secs_f64(ms / 1000.0))
}

fn milliseconds(time: Duration) -> String {
    let (whole, rest) = (time.as_nanos() / 1_000_000, time.as_nanos() % 1_000_000);
    let text = format!("{whole}.{rest:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An advert as a case describes it, as bytes: `N P [every T] [vN] [router N] [address A] [alone]`.
fn packet(words: &[&str], options: &Options) -> (IpAddr, Vec<u8>) {
    let mut words = words.iter();
    let mut number = || -> u8 { words.next().unwrap().parse().unwrap() };
    let from = [10, 0, 0, number()].into();
    let priority = Priority(number());
    let mut addresses = options.addresses.clone();
    let mut advert = Outgoing {
        version: options.version,
        vrid: options.vrid,
        priority,
        interval: interval(1000),
        addresses: &[],
        checksum: Checksum::WithPseudoHeader,
    };
    while let Some(word) = words.next() {
        let mut value = || *words.next().unwrap();
        match *word {
            "every" => advert.interval = interval(value().parse().unwrap()),
            "router" => advert.vrid = value().parse().unwrap(),
            "address" => addresses = vec![value().parse().unwrap()],
            "v2" => advert.version = Version::V2,
            "alone" => advert.checksum = Checksum::MessageAlone,
            other => panic!("{other}"),
        }
    }
    let advert = Outgoing {
        addresses: &addresses,
        ..advert
    };
    let mut room = vec![0; LEN_MAX];
    let len = advert.write(from, GROUP_V4.into(), &mut room).unwrap();
    room.truncate(len);
    (from, room)
}

fn apply(router: &mut Router, now: Instant, input: &str) -> Actions {
    let words: Vec<&str> = input.split_whitespace().collect();
    let source = OWN.into();
    match words[..] {
        ["up"] => router.handle(now, Input::Up { source }),
        ["tick"] => router.handle(now, Input::Tick),
        ["move"] => router.handle(now, Input::Move),
        ["stop"] => router.handle(now, Input::Stop),
        ["down"] => router.handle(now, Input::Down),
        ["fit"] => router.handle(now, Input::Health(Health::Fit)),
        ["unfit"] => router.handle(now, Input::Health(Health::Unfit)),
        ["priority", number] => {
            router.handle(now, Input::Priority(Priority(number.parse().unwrap())))
        }
        ["advert", ..] => {
            let (from, bytes) = packet(&words[1..], router.options());
            let (to, hop_limit) = (GROUP_V4.into(), HOP_LIMIT);
            let envelope = Envelope {
                from,
                to,
                hop_limit,
            };
            let advert = Advert::read(&envelope, Reach::Link, &bytes).unwrap();
            router.handle(now, Input::Advert(&advert))
        }
        _ => panic!("no input: {input}"),
    }
}

fn say(action: Action) -> String {
    match action {
        Action::AddAddresses => "add".to_owned(),
        Action::RemoveAddresses => "remove".to_owned(),
        Action::Send {
            priority,
            checksum: Checksum::WithPseudoHeader,
        } => format!("send {priority}"),
        Action::Send {
            priority,
            checksum: Checksum::MessageAlone,
        } => {
            format!("send {priority} alone")
        }
        Action::Announce => "announce".to_owned(),
        Action::Tell(Note::Became(role, why)) => format!("{} ({})", say_role(role), say_why(why)),
        Action::Tell(Note::Stalled(time)) => format!("stalled {}", milliseconds(time)),
        Action::Tell(Note::NobodyTookOver) => "nobody took over".to_owned(),
        Action::Tell(Note::Odd(oddity, from)) => {
            let what = match oddity {
                Oddity::Version => "version",
                Oddity::OwnAddress => "own address",
                Oddity::Stranger => "stranger",
                Oddity::Interval => "interval",
                Oddity::Addresses => "addresses",
            };
            format!("odd: {what} of {from}")
        }
    }
}

fn say_role(role: Role) -> &'static str {
    match role {
        Role::Init => "init",
        Role::Backup => "backup",
        Role::Master => "master",
    }
}

fn say_why(why: Why) -> String {
    match why {
        Why::Started => "started".to_owned(),
        Why::Owner => "owner".to_owned(),
        Why::MasterSilent => "master silent".to_owned(),
        Why::MasterLeft => "master left".to_owned(),
        Why::Preempts => "preempts".to_owned(),
        Why::Outranked(by) => format!("outranked by {by}"),
        Why::HandedOver(to) => format!("handed over to {to}"),
        Why::Replaced(by) => format!("replaced by {by}"),
        Why::Stopped => "stopped".to_owned(),
        Why::LinkLost => "link lost".to_owned(),
    }
}

#[test]
fn a_router_does_step_by_step_what_is_described() {
    let cases: Cases = toml::from_str(CASES).unwrap();
    let mut wrong = Vec::new();
    for case in &cases.case {
        let mut router = Router::new(case.options()).unwrap();
        router.handle(
            Instant::from_start(Duration::from_millis(case.start)),
            Input::Tick,
        );
        for step in &case.steps {
            let (before, after) = step.split_once("->").unwrap();
            let (at, input) = before.trim().split_once(' ').unwrap();
            let actions = apply(&mut router, instant(at), input.trim());
            let actions: Vec<String> = actions.iter().map(say).collect();
            let next = match router.next_deadline() {
                Instant::NEVER => "never".to_owned(),
                at => milliseconds(at.since_start()),
            };
            let found = format!("{}; next {next}", actions.join(", "));
            if found != after.trim() {
                wrong.push(format!("{}\n  {step}\n  found {found}", case.name));
                break;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.case.len(),
        wrong.join("\n")
    );
    assert!(cases.case.len() > 40);
}
