//! Against the program `nft`: what we wrote it must read as what it would have written.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::Duration;

use mainstay_testkit::{Netns, is_root, program, skip};

use super::*;
use crate::netlink::Socket;

const NEEDS_ROOT: &str = "needs root: makes network namespaces and rules in them";

const TCP: u8 = 6;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`.
const DESTINATION_NAT: [u8; 4] = 0x20_u32.to_ne_bytes();

/// Each step that we can write, as `nft` has it.
const GOLDEN: &str = "
table inet lb {
  map ep4 { typeof ip daddr . ip protocol . th dport . numgen random mod 3 : ip daddr . th dport
    elements = { 10.96.0.1 . tcp . 8080 . 0 : 10.77.0.101 . 80, 10.96.0.1 . tcp . 8080 . 1 : 10.77.0.102 . 80 } }
  map ep6 { typeof ip6 daddr . meta l4proto . th dport . numgen random mod 3 : ip6 daddr . th dport; }
  map hot { type ipv4_addr . inet_proto . inet_service : verdict; counter; }
  set dead { type ipv4_addr . inet_service; }
  set sent { type ipv4_addr . inet_service; size 65536; flags dynamic,timeout; timeout 1h; }
  chain m2 { meta nfproto ipv4 meta l4proto tcp dnat ip to ip daddr . ip protocol . th dport . numgen random mod 2 map @ep4; }
  chain n2 { meta nfproto ipv6 meta l4proto tcp dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 2 map @ep6; }
  chain h64 { meta nfproto ipv4 meta l4proto tcp dnat ip to ip daddr . ip protocol . th dport . jhash ip saddr mod 64 seed 0x5eed map @ep4; }
  chain pre { type nat hook prerouting priority -100; policy accept; meta nfproto ipv4 ip daddr . ip protocol . th dport vmap @hot; }
  chain post { type nat hook postrouting priority 100; policy accept; meta nfproto ipv4 ct status & dnat == dnat fib saddr type != local masquerade; }
  chain out { type filter hook output priority 0; policy accept; meta nfproto ipv4 ip daddr . th dport @dead reject with tcp reset; meta mark 0x17 counter jump end; }
  chain count { type filter hook postrouting priority 90; policy accept; meta nfproto ipv4 ct original ip daddr & 255.240.0.0 == 10.96.0.0 meta l4proto tcp update @sent { ip daddr . th dport counter }; }
  chain bridged { type filter hook forward priority 0; policy accept; meta iifkind \"bridge\" meta oifkind \"bridge\" accept; }
  chain end { reject with icmpx port-unreachable; }
}
add element inet lb hot { 10.96.0.1 . tcp . 8080 : goto m2 }
add element inet lb dead { 10.77.0.103 . 80 }
";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn register(index: u32) -> Register {
    Register::new(index)
}

fn payload(base: Base, offset: u32, len: u32, into: u32) -> Expression {
    let into = register(into);
    Expression::Payload {
        base,
        offset,
        len,
        into,
    }
}

fn equal(index: u32, with: &[u8]) -> Expression {
    Expression::Compare {
        register: register(index),
        how: Comparison::Equal,
        with: with.to_vec(),
    }
}

fn meta(key: MetaKey, into: u32) -> Expression {
    let into = register(into);
    Expression::Meta { key, into }
}

/// `NFPROTO_IPV4`.
fn is_ipv4() -> [Expression; 2] {
    [meta(MetaKey::NetworkProtocol, 0), equal(0, &[2])]
}

fn is_tcp() -> [Expression; 2] {
    [meta(MetaKey::TransportProtocol, 0), equal(0, &[TCP])]
}

fn destination() -> [Expression; 3] {
    [
        payload(Base::Network, 16, 4, 0),
        payload(Base::Network, 9, 1, 1),
        payload(Base::Transport, 2, 2, 2),
    ]
}

fn nat(family: Family, map: &str, address: u32, port: u32) -> [Expression; 2] {
    [
        Expression::Map {
            map: name(map),
            key: register(0),
            into: register(0),
        },
        Expression::DestinationNat {
            family,
            address: register(address),
            port: register(port),
        },
    ]
}

fn chain(text: &str, base: Option<Hook>) -> Chain {
    Chain {
        name: name(text),
        base: base.map(|hook| (hook, Policy::Accept)),
    }
}

fn key(port: u16) -> Key {
    Key::new()
        .address(Ipv4Addr::new(10, 96, 0, 1).into())
        .protocol(TCP)
        .port(port)
}

fn instance(last: u8) -> Key {
    let address = IpAddr::from([10, 77, 0, last]);
    Key::new().address(address).port(80)
}

const SERVICE: &[Kind] = &[Kind::Ipv4, Kind::Protocol, Kind::Port];
const SLOT: &[Kind] = &[Kind::Ipv4, Kind::Protocol, Kind::Port, Kind::Number];
const SLOT6: &[Kind] = &[Kind::Ipv6, Kind::Protocol, Kind::Port, Kind::Number];

fn sets() -> [Set; 5] {
    let set = |text, key, values, counted| Set {
        name: name(text),
        key: Fields(key),
        values,
        counted,
        dynamic: None,
    };
    let counting = Set {
        dynamic: Some(Dynamic {
            size: 65_536,
            idle: Duration::from_hours(1),
        }),
        ..set("sent", &[Kind::Ipv4, Kind::Port], Values::None, false)
    };
    let to4 = Values::Fields(Fields(&[Kind::Ipv4, Kind::Port]));
    let to6 = Values::Fields(Fields(&[Kind::Ipv6, Kind::Port]));
    [
        set("ep4", SLOT, to4, false),
        set("ep6", SLOT6, to6, false),
        set("hot", SERVICE, Values::Verdicts, true),
        set("dead", &[Kind::Ipv4, Kind::Port], Values::None, false),
        counting,
    ]
}

type Rules = Vec<(Chain, Vec<Vec<Expression>>)>;

/// The chains that choose an instance.
fn choosing() -> Rules {
    let random = |into| Expression::Random {
        modulus: 2,
        into: register(into),
    };
    let m2 = [
        &is_ipv4()[..],
        &is_tcp(),
        &destination(),
        &[random(3)],
        &nat(Family::Ipv4, "ep4", 0, 1),
    ];
    let n2 = [
        &[meta(MetaKey::NetworkProtocol, 0), equal(0, &[10])][..],
        &is_tcp(),
        &[
            payload(Base::Network, 24, 16, 0),
            meta(MetaKey::TransportProtocol, 4),
            payload(Base::Transport, 2, 2, 5),
            random(6),
        ],
        &nat(Family::Ipv6, "ep6", 0, 4),
    ];
    let hash = Expression::Hash {
        from: register(8),
        len: 4,
        modulus: 64,
        seed: 0x5eed,
        into: register(3),
    };
    let h64 = [
        &is_ipv4()[..],
        &is_tcp(),
        &destination(),
        &[payload(Base::Network, 12, 4, 8), hash],
        &nat(Family::Ipv4, "ep4", 0, 1),
    ];
    vec![
        (chain("m2", None), vec![m2.concat()]),
        (chain("n2", None), vec![n2.concat()]),
        (chain("h64", None), vec![h64.concat()]),
    ]
}

/// What resets connections to the dead.
fn resetting() -> Vec<Expression> {
    let is_dead = Expression::IsIn {
        set: name("dead"),
        key: register(0),
    };
    [
        &is_tcp()[..],
        &is_ipv4(),
        &[
            payload(Base::Network, 16, 4, 0),
            payload(Base::Transport, 2, 2, 1),
            is_dead,
            Expression::Reject(Rejection::TcpReset),
        ],
    ]
    .concat()
}

/// What counts bytes to instances.
fn counting() -> Vec<Expression> {
    let original = [
        Expression::Conntrack {
            key: ConntrackKey::OriginalIpv4Destination,
            into: register(0),
        },
        Expression::Mask {
            from: register(0),
            mask: vec![255, 240, 0, 0],
            into: register(0),
        },
        equal(0, &[10, 96, 0, 0]),
    ];
    let sent = [
        payload(Base::Network, 16, 4, 0),
        payload(Base::Transport, 2, 2, 1),
        Expression::Count {
            set: name("sent"),
            key: register(0),
        },
    ];
    [&is_ipv4()[..], &original, &is_tcp(), &sent].concat()
}

/// The chains to which packets come by themselves.
fn hooked() -> Rules {
    let vmap = Expression::VerdictMap {
        map: name("hot"),
        key: register(0),
    };
    let pre = [&is_ipv4()[..], &destination(), &[vmap]];
    let status = Expression::Conntrack {
        key: ConntrackKey::Status,
        into: register(0),
    };
    let mask = Expression::Mask {
        from: register(0),
        mask: DESTINATION_NAT.to_vec(),
        into: register(0),
    };
    let not_local = Expression::Compare {
        register: register(0),
        how: Comparison::NotEqual,
        with: LOCAL.to_ne_bytes().to_vec(),
    };
    let source = Expression::SourceAddressType { into: register(0) };
    let post = [
        &is_ipv4()[..],
        &[
            status,
            mask,
            equal(0, &DESTINATION_NAT),
            source,
            not_local,
            Expression::Masquerade,
        ],
    ];
    let marked = [
        meta(MetaKey::Mark, 0),
        equal(0, &0x17_u32.to_ne_bytes()),
        Expression::Counter,
        Expression::Verdict(Verdict::Jump(name("end"))),
    ];
    let end = [Expression::Reject(Rejection::PortUnreachable)];
    vec![
        (
            chain("pre", Some(Hook::NatPrerouting(-100))),
            vec![pre.concat()],
        ),
        (
            chain("post", Some(Hook::NatPostrouting(100))),
            vec![post.concat()],
        ),
        (
            chain("out", Some(Hook::FilterOutput(0))),
            vec![resetting(), marked.to_vec()],
        ),
        (
            chain("count", Some(Hook::FilterPostrouting(90))),
            vec![counting()],
        ),
        (
            chain("bridged", Some(Hook::FilterForward(0))),
            vec![bridged()],
        ),
        (chain("end", None), vec![end.to_vec()]),
    ]
}

fn bridged() -> Vec<Expression> {
    let is_bridge = equal(0, b"bridge\0\0\0\0\0\0\0\0\0\0");
    vec![
        meta(MetaKey::InputKind, 0),
        is_bridge.clone(),
        meta(MetaKey::OutputKind, 0),
        is_bridge,
        Expression::Verdict(Verdict::Accept),
    ]
}

/// The same as [`GOLDEN`].
fn ours() -> Transaction {
    let mut ours = Transaction::new(Family::Inet, name("lb"));
    ours.add_table();
    for set in &sets() {
        ours.add_set(set);
    }
    let rules = [choosing(), hooked()].concat();
    for (chain, _) in &rules {
        ours.add_chain(chain);
    }
    for (chain, rules) in &rules {
        for rule in rules {
            ours.add_rule(&chain.name, rule);
        }
    }
    let slots = [(0, 101), (1, 102)];
    let slots = slots.map(|(slot, last)| Element::value(key(8080).number(slot), instance(last)));
    ours.add_elements(&name("ep4"), &slots);
    let to = Verdict::Goto(name("m2"));
    ours.add_elements(&name("hot"), &[Element::verdict(key(8080), to)]);
    ours.add_elements(&name("dead"), &[Element::key(instance(103))]);
    ours
}

fn nft(netns: &Netns, arguments: &[&str], input: &str) -> String {
    let mut command = netns.command(&program("nft"));
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The steps of all rules as the kernel has them, and how sets and chains are declared.
fn listed(netns: &Netns) -> Vec<String> {
    let listed = nft(
        netns,
        &["--debug=netlink", "list", "table", "inet", "lb"],
        "",
    );
    let lines = listed.lines().map(str::trim);
    // nft keeps in the table how `typeof` was written, and tells where it found each rule.
    lines
        .filter(|line| line.starts_with('[') || line.starts_with("type "))
        .filter(|line| !line.starts_with("type ipv4_addr . inet_proto . inet_service . "))
        .filter(|line| !line.starts_with("type ipv6_addr . "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn system_nft_reads_our_rules_as_its_own() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (theirs, mine) = (Netns::new(), Netns::new());
    nft(&theirs, &["-f", "-"], GOLDEN);
    mine.enter(|| ours().commit(&Socket::open().unwrap()).unwrap());
    let (expected, found) = (listed(&theirs), listed(&mine));
    assert!(expected.len() > 50, "{expected:#?}");
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn system_elements_are_read_back_as_they_were_written() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let netns = Netns::new();
    let (mut slots, services, dead) = netns.enter(|| {
        let socket = Socket::open().unwrap();
        ours().commit(&socket).unwrap();
        let dump = |set| {
            socket
                .dump_elements(Family::Inet, &name("lb"), &name(set))
                .unwrap()
        };
        (dump("ep4"), dump("hot"), dump("dead"))
    });
    slots.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<_> = slots.iter().map(|slot| slot.key.clone()).collect();
    assert_eq!(keys, [0, 1].map(|slot| key(8080).number(slot).to_bytes()));
    assert_eq!(slots[0].value, Some(instance(101).to_bytes()));
    assert_eq!(services[0].chain.as_deref(), Some("m2"));
    assert_eq!(services[0].counted, Some((0, 0)));
    assert_eq!(dead[0].key, instance(103).to_bytes());
    assert_eq!((dead[0].value.as_ref(), dead[0].counted), (None, None));
}

#[test]
fn system_more_elements_than_one_message_holds_come_all_or_none() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let many: Vec<_> = (1..=60_000)
        .map(|number| Element::value(key(80).number(number), instance(1)))
        .collect();
    Netns::new().enter(|| {
        let socket = Socket::open().unwrap();
        ours().commit(&socket).unwrap();
        let change = || Transaction::new(Family::Inet, name("lb"));
        let count = || {
            let dump = socket.dump_elements(Family::Inet, &name("lb"), &name("ep4"));
            dump.unwrap().len()
        };
        let mut broken = change();
        broken.add_elements(&name("ep4"), &many);
        // Half way: an element that is there already.
        broken.add_elements(&name("ep4"), &[many[7].clone(), many[30_000].clone()]);
        broken.commit(&socket).unwrap_err();
        assert_eq!(count(), 2);
        let mut whole = change();
        whole.add_elements(&name("ep4"), &many);
        whole.commit(&socket).unwrap();
        assert_eq!(count(), 60_002);
        let mut gone = change();
        let keys: Vec<_> = many
            .iter()
            .map(|one| Element::key(one.key.clone()))
            .collect();
        gone.delete_elements(&name("ep4"), &keys);
        gone.commit(&socket).unwrap();
        assert_eq!(count(), 2);
    });
}

#[test]
fn system_a_refusal_names_the_element_and_nothing_is_changed() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let socket = Socket::open().unwrap();
        ours().commit(&socket).unwrap();
        let mut change = Transaction::new(Family::Inet, name("lb"));
        let wanted: Vec<_> = (0..1000)
            .map(|port| Element::verdict(key(port), Verdict::Goto(name("m2"))))
            .chain([Element::verdict(key(1000), Verdict::Goto(name("m3")))])
            .collect();
        change.add_elements(&name("hot"), &wanted);
        let error = change.commit(&socket).unwrap_err();
        let TransactionError::Refused {
            what,
            element,
            source,
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(*element, Some(1000), "{error}");
        assert_eq!(what, "to add element 1000 to set `hot` of table `lb`");
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound, "{source}");
        let left = socket.dump_elements(Family::Inet, &name("lb"), &name("hot"));
        assert_eq!(left.unwrap().len(), 1);
    });
}

#[test]
fn system_without_the_right_it_is_refused_as_such() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let socket = Socket::open().unwrap();
        crate::netlink::tests::drop_rights();
        let error = ours().commit(&socket).unwrap_err();
        let kind = match &error {
            TransactionError::Refused { source, .. } | TransactionError::Socket(source) => {
                source.kind()
            }
            TransactionError::Unanswered { .. } | TransactionError::Overtaken => panic!("{error}"),
        };
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied, "{error}");
    });
}

#[test]
fn system_what_somebody_else_changed_is_seen() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let netns = Netns::new();
    let table = name("lb");
    let socket = netns.enter(|| Socket::open().unwrap());
    assert_eq!(socket.list_table(Family::Inet, &table).unwrap(), None);
    ours().commit(&socket).unwrap();
    let made = socket.list_table(Family::Inet, &table).unwrap().unwrap();
    let at = socket.generation().unwrap();

    let mut expected = Transaction::new(Family::Inet, table.clone());
    expected.only_at(at);
    expected.flush_set(&name("dead"));
    expected.commit(&socket).unwrap();
    assert_eq!(socket.generation().unwrap(), at.next());

    nft(&netns, &["flush", "chain", "inet", "lb", "post"], "");
    let mut late = Transaction::new(Family::Inet, table.clone());
    late.only_at(at.next());
    late.add_elements(&name("dead"), &[Element::key(instance(104))]);
    let refused = late.commit(&socket).unwrap_err();
    assert!(matches!(refused, TransactionError::Overtaken), "{refused}");
    let dead = socket.dump_elements(Family::Inet, &table, &name("dead"));
    assert_eq!(dead.unwrap(), []);
    let found = socket.list_table(Family::Inet, &table).unwrap().unwrap();
    assert_eq!(found.chains, made.chains);
    assert_eq!(found.rules.len() + 1, made.rules.len());
    nft(
        &netns,
        &["add", "table", "inet", "lb", "{ flags dormant; }"],
        "",
    );
    assert!(
        socket
            .list_table(Family::Inet, &table)
            .unwrap()
            .unwrap()
            .dormant
    );
}

#[test]
fn system_base_chains_of_anybody_are_seen_with_their_policy() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let netns = Netns::new();
    let theirs = "
        table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }
          chain OTHER { }
        }
        table inet theirs { chain pre { type nat hook prerouting priority dstnat - 5; }
        }\n";
    nft(&netns, &["-f", "-"], theirs);
    let mut found = netns.enter(|| Socket::open().unwrap().hooked_chains().unwrap());
    found.sort_by_key(|chain| chain.family);
    let hooked = |family, table: &str, chain: &str, kind: &str| Hooked {
        family,
        table: table.to_owned(),
        chain: chain.to_owned(),
        kind: kind.to_owned(),
        hook: 0,
        priority: -105,
        policy: Policy::Accept,
    };
    let forward = Hooked {
        hook: 2,
        priority: 0,
        policy: Policy::Drop,
        ..hooked(2, "filter", "FORWARD", "filter")
    };
    assert_eq!(found, [hooked(1, "theirs", "pre", "nat"), forward]);
}

#[test]
fn fields_are_padded_and_a_single_one_is_not() {
    assert_eq!(Key::new().port(80).to_bytes(), [0, 80]);
    assert_eq!(
        instance(1).to_bytes(),
        [10, 77, 0, 1, 0, 80, 0, 0],
        "an address and a port"
    );
    let six = Key::new().address(Ipv6Addr::LOCALHOST.into()).number(1);
    assert_eq!(six.to_bytes().len(), 20);
}

#[test]
fn names_that_nft_could_not_write_are_refused() {
    for text in ["", "a b", "a\"b", "a\0", &"a".repeat(256)] {
        let error = Name::new(text).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }
    assert_eq!(Name::new("m-2_x.y").unwrap().as_str(), "m-2_x.y");
}
