use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

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

fn found(patterns: &topic::Patterns, key: &[u8]) -> Vec<ShortString> {
    let mut found = Vec::new();
    patterns.matching(key, |pattern| found.push(pattern.clone()));
    found.sort();
    found
}

fn short(text: &[u8]) -> ShortString {
    ShortString::new(Bytes::copy_from_slice(text)).unwrap()
}

#[test]
fn topics_match_as_the_rule_says_however_many_there_are_and_were() {
    let keys = texts(b"ab.", 5);
    let all: Vec<ShortString> = texts(b"a*#.", 4).iter().map(|text| short(text)).collect();
    let mut patterns = topic::Patterns::new();
    for pattern in &all {
        patterns.add(pattern);
        patterns.add(pattern);
    }
    // All of them, then each third, then none.
    for step in [1, 3, all.len() + 1] {
        let kept = |at: usize| at % step == step - 1;
        for (at, pattern) in all.iter().enumerate() {
            if !kept(at) {
                patterns.remove(pattern);
                patterns.remove(pattern);
            }
        }
        for key in &keys {
            let fits = |(at, pattern): &(usize, &ShortString)| {
                kept(*at) && plainly(&words(pattern.as_bytes()), &words(key))
            };
            let mut wanted: Vec<ShortString> = all
                .iter()
                .enumerate()
                .filter(fits)
                .map(|(_, pattern)| pattern.clone())
                .collect();
            wanted.sort();
            assert_eq!(found(&patterns, key), wanted, "{:?}", short(key));
        }
    }
    assert_eq!(patterns.nodes(), 1);
}

#[test]
fn a_hostile_pattern_costs_no_more_than_its_words_times_those_of_the_key() {
    // Tried plainly, this takes longer than anybody waits.
    let pattern = ["#.a."; 60].concat() + "b";
    let key = ["a"; 127].join(".");
    let mut patterns = topic::Patterns::new();
    patterns.add(&short(pattern.as_bytes()));
    assert_eq!(found(&patterns, key.as_bytes()), [""; 0]);
    let end = short((key + ".b").as_bytes());
    assert_eq!(found(&patterns, end.as_bytes()).len(), 1);
}

#[test]
fn ten_thousand_patterns_cost_a_message_what_one_costs() {
    let mut vhost = Vhost::new("/");
    for at in 0..10_000 {
        let one = binding(
            "amq.topic",
            queue(&format!("q{at}")),
            &format!("n{at}.*.end"),
        );
        assert_eq!(vhost.bind(one), Ok(true));
    }
    // Some hundred million comparisons of words, if each pattern were asked.
    for at in 0..10_000 {
        let key = format!("n{at}.any.end");
        assert_eq!(
            routed(&vhost, "amq.topic", &key),
            [format!("q{at}").as_str()]
        );
    }
    for at in 0..10_000 {
        let removed = vhost.delete_queue(&short(format!("q{at}").as_bytes()));
        assert_eq!(removed.bindings.len(), 1);
    }
    assert!(!vhost.is_source(&"amq.topic".into()));
}

#[test]
fn bindings_of_one_key_go_one_by_one_at_little_cost() {
    let mut vhost = Vhost::new("/");
    let all: Vec<Binding> = (0..20_000)
        .map(|at| binding("amq.fanout", queue(&format!("q{at}")), ""))
        .collect();
    for one in &all {
        assert_eq!(vhost.bind(one.clone()), Ok(true));
        assert_eq!(vhost.bind(one.clone()), Ok(false));
    }
    assert_eq!(routed(&vhost, "amq.fanout", "").len(), all.len());
    for one in &all {
        assert!(vhost.unbind(one).is_some());
    }
    assert_eq!(vhost.bindings().count(), 0);
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
