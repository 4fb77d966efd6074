use alloc::vec;
use alloc::vec::Vec;

use super::*;

fn words(text: &[u8]) -> Vec<&[u8]> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == b'.').collect()
}

/// The rule as it is written, whatever it costs.
fn plainly(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    match pattern {
        [] => key.is_empty(),
        [b"#", rest @ ..] => (0..=key.len()).any(|at| plainly(rest, &key[at..])),
        [word, rest @ ..] => match key {
            [first, others @ ..] => (*word == b"*" || word == first) && plainly(rest, others),
            [] => false,
        },
    }
}

/// Texts over a few letters, all up to a length.
fn texts(letters: &[u8], len: usize) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..len {
        let longer = |text: &Vec<u8>| {
            let text = text.clone();
            letters
                .iter()
                .map(move |letter| [&text[..], &[*letter]].concat())
        };
        last = last.iter().flat_map(longer).collect();
        all.extend(last.iter().cloned());
    }
    all
}

#[test]
fn a_topic_matches_as_the_rule_says() {
    let keys = texts(b"ab.", 5);
    for pattern in texts(b"a*#.", 5) {
        for key in &keys {
            let wanted = plainly(&words(&pattern), &words(key));
            let shown = || (String::from_utf8_lossy(&pattern).into_owned(), key.clone());
            assert_eq!(topic::matches(&pattern, key), wanted, "{:?}", shown());
        }
    }
}

#[test]
fn a_hostile_pattern_costs_no_more_than_its_words_times_those_of_the_key() {
    // Tried plainly, this takes longer than anybody waits.
    let pattern = ["#.a."; 60].concat() + "b";
    let key = ["a"; 127].join(".");
    assert!(!topic::matches(pattern.as_bytes(), key.as_bytes()));
}

fn exchange(name: &str, kind: ExchangeKind) -> Exchange {
    Exchange {
        name: name.into(),
        kind,
        durable: false,
        auto_delete: false,
        internal: false,
        alternate: None,
        arguments: Table::EMPTY,
    }
}

fn binding(source: &str, destination: Destination, key: &str) -> Binding {
    Binding {
        source: source.into(),
        destination,
        key: key.into(),
        arguments: Table::EMPTY,
    }
}

fn queue(name: &str) -> Destination {
    Destination::Queue(name.into())
}

fn routed(vhost: &Vhost, exchange: &str, key: &str) -> Vec<ShortString> {
    let keys = [ShortString::from(key)];
    let route = Route {
        keys: &keys,
        headers: None,
    };
    vhost.route(&exchange.into(), route).queues
}

#[test]
fn a_ring_of_exchanges_and_many_ways_to_a_queue_give_one_message() {
    let mut vhost = Vhost::new("/");
    for name in ["a", "b"] {
        vhost.declare(exchange(name, ExchangeKind::Fanout));
    }
    for (source, destination) in [("a", "b"), ("b", "a")] {
        let end = Destination::Exchange(destination.into());
        assert_eq!(vhost.bind(binding(source, end, "")), Ok(true));
    }
    for (source, key) in [("a", "1"), ("a", "2"), ("b", "3")] {
        vhost.bind(binding(source, queue("q"), key)).unwrap();
    }
    assert_eq!(routed(&vhost, "a", "any"), ["q"]);
}

#[test]
fn a_binding_is_there_once_and_goes_once() {
    let mut vhost = Vhost::new("/");
    let one = binding("amq.direct", queue("q"), "k");
    assert_eq!(vhost.bind(one.clone()), Ok(true));
    assert_eq!(vhost.bind(one.clone()), Ok(false));
    assert_eq!(vhost.bindings().count(), 1);
    assert!(vhost.unbind(&one).is_some());
    assert!(vhost.unbind(&one).is_none());
    assert_eq!(vhost.bindings().count(), 0);
    assert!(!vhost.is_source(&"amq.direct".into()));
}

#[test]
fn exchanges_that_are_done_go_one_after_another() {
    let mut vhost = Vhost::new("/");
    for name in ["first", "middle"] {
        let mut one = exchange(name, ExchangeKind::Fanout);
        one.auto_delete = true;
        vhost.declare(one);
    }
    let middle = Destination::Exchange("middle".into());
    vhost.bind(binding("first", middle, "")).unwrap();
    vhost.bind(binding("middle", queue("q"), "")).unwrap();
    let removed = vhost.delete_queue(&"q".into());
    let names: Vec<&ShortString> = removed.exchanges.iter().map(|one| &one.name).collect();
    assert_eq!(names, ["middle", "first"]);
    assert_eq!(removed.bindings.len(), 2);
    assert_eq!(vhost.bindings().count(), 0);
}

#[test]
fn alternates_in_a_ring_end() {
    let mut vhost = Vhost::new("/");
    for (name, other) in [("a", "b"), ("b", "a")] {
        let mut one = exchange(name, ExchangeKind::Direct);
        one.alternate = Some(other.into());
        vhost.declare(one);
    }
    assert_eq!(routed(&vhost, "a", "k"), [""; 0]);
}
