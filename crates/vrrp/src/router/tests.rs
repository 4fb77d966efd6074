use super::*;
use crate::options::tests::options;
use crate::packet::{Envelope, HOP_LIMIT, LEN_MAX, Outgoing, Reach};
use crate::words::Vrid;
use alloc::vec::Vec;
use proptest::prelude::{Strategy, any};
use proptest::{collection, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn at(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}

/// Lets a router hear an advert of 10.0.0.`from`.
fn hear(router: &mut Router, now: Instant, from: u8, priority: u8, centiseconds: u16) -> Actions {
    let from: IpAddr = [10, 0, 0, from].into();
    let advert = Outgoing {
        version: Version::V3,
        vrid: Vrid::new(51).unwrap(),
        priority: Priority(priority),
        interval: Interval::from_centiseconds(centiseconds).unwrap(),
        addresses: &[[10, 0, 0, 100].into()],
        checksum: Checksum::WithPseudoHeader,
    };
    let mut room = [0; LEN_MAX];
    let to = router.options().group();
    let len = advert.write(from, to, &mut room).unwrap();
    let hop_limit = HOP_LIMIT;
    let advert = Advert::read(
        &Envelope {
            from,
            to,
            hop_limit,
        },
        Reach::Link,
        &room[..len],
    );
    router.handle(now, Input::Advert(&advert.unwrap()))
}

fn master() -> Router {
    let mut options = options();
    options.priority = Priority::OWNER;
    let mut router = Router::new(options).unwrap();
    let source = [10, 0, 0, 5].into();
    router.handle(at(0), Input::Up { source });
    assert_eq!(router.role(), Role::Master);
    router
}

#[test]
fn a_flood_of_rivals_makes_no_flood_of_ours() {
    let mut router = master();
    let sent = |actions: Actions, what: fn(&Action) -> bool| actions.iter().filter(what).count();
    let (mut adverts, mut announcements) = (0, 0);
    for microsecond in 0..100_000 {
        let now = Instant::from_start(Duration::from_micros(1000 + microsecond * 10));
        let heard = hear(&mut router, now, 4, 254, 10);
        let ticked = router.handle(now, Input::Tick);
        for actions in [heard, ticked] {
            adverts += sent(actions, |action| matches!(action, Action::Send { .. }));
            announcements += sent(actions, |action| matches!(action, Action::Announce));
        }
    }
    // A second, a hundred thousand packets.
    assert!((100..=110).contains(&adverts), "{adverts}");
    assert!((100..=130).contains(&announcements), "{announcements}");
    assert_eq!(router.counts().heard, 100_000);
}

#[test]
fn strange_packets_are_told_once_a_minute_and_all_counted() {
    let mut router = master();
    let told: usize = (0..120_000)
        .map(|ms| hear(&mut router, at(ms), 5, 100, 10))
        .map(|actions| {
            let told = |action: &Action| matches!(action, Action::Tell(Note::Odd(..)));
            actions.iter().filter(told).count()
        })
        .sum();
    assert_eq!(told, 2);
    assert_eq!(router.odd(Oddity::OwnAddress), 120_000);
    assert_eq!(router.counts().heard, 0);
}

#[test]
fn addresses_are_renewed_by_who_holds_them_for_certain() {
    let mut router = master();
    assert!(router.renews_addresses());
    router.handle(at(1000), Input::Tick);
    assert_eq!(
        (router.role(), router.renews_addresses()),
        (Role::Master, false)
    );
    router.handle(at(1200), Input::Tick);
    assert!(router.renews_addresses());
    router.handle(at(1210), Input::Move);
    assert!(router.renews_addresses());
    hear(&mut router, at(1220), 4, 100, 10);
    assert_eq!(
        (router.role(), router.renews_addresses()),
        (Role::Backup, false)
    );
    assert_eq!(router.master(), Some([10, 0, 0, 4].into()));
}

#[test]
fn what_happened_is_counted() {
    let mut router = master();
    router.handle(at(100), Input::Tick);
    router.handle(at(110), Input::Move);
    hear(&mut router, at(120), 4, 100, 10);
    let expected = Counts {
        heard: 1,
        sent: 4,
        took_over: 1,
        gave_way: 1,
        stalls: 0,
    };
    assert_eq!(router.counts(), expected);
    let peers: Vec<_> = router
        .peers()
        .map(|peer| (peer.address, peer.priority))
        .collect();
    assert_eq!(peers, [([10, 0, 0, 4].into(), Priority(100))]);
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Up,
    Down,
    Tick,
    Deadline,
    Move,
    Stop,
    Priority(u8),
    Health(bool),
    Advert(u8, u8, u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let advert = (0u8..9, any::<u8>(), 1u16..300);
    prop_oneof![
        2 => proptest::strategy::Just(H::Up),
        1 => proptest::strategy::Just(H::Down),
        5 => proptest::strategy::Just(H::Tick),
        10 => proptest::strategy::Just(H::Deadline),
        2 => proptest::strategy::Just(H::Move),
        1 => proptest::strategy::Just(H::Stop),
        2 => any::<u8>().prop_map(H::Priority),
        3 => any::<bool>().prop_map(H::Health),
        10 => advert.prop_map(|(from, priority, every)| H::Advert(from, priority, every)),
    ]
}

fn happen(router: &mut Router, now: Instant, what: Happening) -> Actions {
    match what {
        Happening::Up => router.handle(
            now,
            Input::Up {
                source: [10, 0, 0, 5].into(),
            },
        ),
        Happening::Down => router.handle(now, Input::Down),
        Happening::Tick | Happening::Deadline => router.handle(now, Input::Tick),
        Happening::Move => router.handle(now, Input::Move),
        Happening::Stop => router.handle(now, Input::Stop),
        Happening::Priority(priority) => router.handle(now, Input::Priority(Priority(priority))),
        Happening::Health(true) => router.handle(now, Input::Health(Health::Fit)),
        Happening::Health(false) => router.handle(now, Input::Health(Health::Unfit)),
        Happening::Advert(from, priority, every) => hear(router, now, from, priority, every),
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Debug builds check the machine's own invariants after each input, and that the actions have room.
    #[test]
    fn whatever_happens_the_addresses_are_held_by_the_master_and_no_deadline_stands_still(
        priority in 1u8..,
        preempt in 0u64..3,
        happenings in collection::vec((happening(), -400i64..800), 1..200),
    ) {
        let mut options = options();
        options.priority = Priority(priority);
        options.preempt = match preempt {
            0 => crate::options::Preempt::Never,
            1 => crate::options::Preempt::Always,
            _ => crate::options::Preempt::After(Duration::from_millis(500)),
        };
        let mut router = Router::new(options).unwrap();
        let mut now = at(1_000_000);
        let mut held = false;
        for (what, step) in happenings {
            let deadline = router.next_deadline();
            now = match (what, u64::try_from(step)) {
                (Happening::Deadline, _) if deadline != Instant::NEVER => deadline,
                (_, Ok(ahead)) => now.after(Duration::from_millis(ahead)),
                // The driver's clock is set back.
                (_, Err(_)) => Instant::from_start(now.since_start().saturating_sub(Duration::from_millis(step.unsigned_abs()))),
            };
            let actions = happen(&mut router, now, what);
            for action in actions.iter() {
                match action {
                    Action::AddAddresses => held = true,
                    Action::RemoveAddresses => held = false,
                    Action::Send { priority, .. } => {
                        prop_assert!(held || priority <= router.priority(), "a word of who holds nothing");
                    }
                    Action::Announce => prop_assert!(held),
                    Action::Tell(_) => {}
                }
            }
            prop_assert_eq!(held, router.role() == Role::Master);
            if matches!(what, Happening::Tick | Happening::Deadline) {
                prop_assert!(router.next_deadline() > now, "it would be called again at once: {router:?}");
            }
        }
    }
}
