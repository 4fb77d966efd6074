//! Against the program `ip` and real connections.

use std::net::{SocketAddr, TcpListener, TcpStream};

use mainstay_testkit::{Netns, is_root, program, skip};

use super::*;

const NEEDS_ROOT: &str = "needs root: makes network namespaces and routes in them";

fn prefix(text: &str) -> Prefix {
    crate::netlink::prefix::tests::read(text).unwrap()
}

fn route(to: &str, source: Option<&str>) -> LocalRoute {
    LocalRoute {
        prefix: prefix(to),
        source: source.map(|source| source.parse().unwrap()),
    }
}

fn ip(netns: &Netns, line: &str) -> String {
    let mut command = netns.command(&program("ip"));
    let output = command.args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn system_every_address_of_the_range_is_the_machines_own() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let netns = Netns::new();
    ip(&netns, "address add 10.77.0.1/24 dev lo");
    ip(&netns, "address add fd00:77::1/64 dev lo nodad");
    netns.enter(|| {
        let routes = Routes::open().unwrap();
        // One for both versions of IP, on all addresses.
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for (range, address, source) in [
            ("10.96.0.0/16", "10.96.3.4", "10.77.0.1"),
            ("fd00:96::/64", "fd00:96::3:4", "fd00:77::1"),
        ] {
            let asked = SocketAddr::new(address.parse().unwrap(), port);
            let error = TcpStream::connect(asked).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
            let wanted = route(range, Some(source));
            assert_eq!(routes.add_local(&wanted).unwrap(), Outcome::Changed);
            let client = TcpStream::connect(asked).unwrap();
            let from = client.local_addr().unwrap().ip();
            assert_eq!(from.to_string(), source);
            assert_eq!(routes.add_local(&wanted).unwrap(), Outcome::Unchanged);
            assert_eq!(routes.locals().unwrap(), [wanted]);
            // Another source takes its place.
            let other = route(range, None);
            assert_eq!(routes.add_local(&other).unwrap(), Outcome::Changed);
            assert_eq!(routes.locals().unwrap(), [other]);
            assert_eq!(
                routes.delete_local(prefix(range)).unwrap(),
                Outcome::Changed
            );
            assert_eq!(
                routes.delete_local(prefix(range)).unwrap(),
                Outcome::Unchanged
            );
            assert_eq!(routes.locals().unwrap(), []);
            TcpStream::connect(asked).unwrap_err();
        }
    });
}

#[test]
fn system_a_route_of_somebody_else_is_left_alone() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let netns = Netns::new();
    for (range, six) in [("10.96.0.0/16", ""), ("fd00:96::/64", "-6 ")] {
        ip(&netns, &format!("{six}route add local {range} dev lo"));
        netns.enter(|| {
            let routes = Routes::open().unwrap();
            let error = routes.add_local(&route(range, None)).unwrap_err();
            assert!(matches!(error, RouteError::Taken(_)), "{error:?}");
            assert!(error.to_string().contains(range), "{error}");
            let deleted = routes.delete_local(prefix(range)).unwrap();
            assert_eq!(deleted, Outcome::Unchanged);
            assert_eq!(routes.locals().unwrap(), []);
        });
        let list = ip(&netns, &format!("{six}route show table local"));
        assert!(list.contains(range), "{list}");
    }
}

#[test]
fn system_what_collides_is_told_by_its_name() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (netns, other) = (Netns::new(), Netns::new());
    Netns::join((&netns, "10.9.0.1/24"), (&other, "10.9.0.2/24"));
    let links = ip(&netns, "-o link show type veth");
    let link = links.split([' ', '@']).nth(1).unwrap();
    ip(&netns, "route add default via 10.9.0.2");
    ip(&netns, "route add 10.96.8.0/24 via 10.9.0.2");
    ip(&netns, "route add blackhole 10.97.0.0/16");
    ip(&netns, "route add 10.98.0.0/15 via 10.9.0.2 table 7");
    ip(&netns, &format!("-6 route add fd00:96::/48 dev {link}"));
    netns.enter(|| {
        let routes = Routes::open().unwrap();
        for (range, expected) in [
            (
                "10.96.0.0/16",
                Some(format!("route to 10.96.8.0/24 by interface `{link}`")),
            ),
            (
                "10.96.0.0/20",
                Some(format!("route to 10.96.8.0/24 by interface `{link}`")),
            ),
            ("10.96.0.0/21", None),
            ("10.97.1.0/24", Some("route to 10.97.0.0/16".to_owned())),
            (
                "10.99.0.0/16",
                Some(format!("route to 10.98.0.0/15 by interface `{link}`")),
            ),
            (
                "10.8.0.0/15",
                Some(format!("address 10.9.0.1 of interface `{link}`")),
            ),
            (
                "127.3.0.0/16",
                Some("route to 127.0.0.0/8 by interface `lo`".to_owned()),
            ),
            (
                "10.9.0.128/25",
                Some(format!("route to 10.9.0.0/24 by interface `{link}`")),
            ),
            (
                "fd00:96::/64",
                Some(format!("route to fd00:96::/48 by interface `{link}`")),
            ),
            ("fd00:97::/64", None),
            ("::/127", Some("address ::1 of interface `lo`".to_owned())),
        ] {
            let found = routes.collision(prefix(range)).unwrap();
            let text = found.as_ref().map(ToString::to_string);
            let expected = expected.map(|expected| format!("the {expected}"));
            assert_eq!(text, expected, "{range}");
        }
        // Our own is none.
        routes.add_local(&route("10.94.0.0/16", None)).unwrap();
        assert_eq!(routes.collision(prefix("10.94.0.0/16")).unwrap(), None);
    });
}

#[test]
fn system_without_the_right_it_is_told_what_was_refused() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let routes = Routes::open().unwrap();
        super::super::tests::drop_rights();
        let error = routes.add_local(&route("10.96.0.0/16", None)).unwrap_err();
        assert!(error.to_string().contains("10.96.0.0/16"), "{error}");
        let RouteError::Refused { source, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(routes.collision(prefix("10.96.0.0/16")).unwrap(), None);
    });
}

#[test]
fn every_cut_of_an_answer_is_read_or_left() {
    let mut out = Writer::default();
    write(
        &mut out,
        (NEW_ROUTE, 0),
        &route("10.96.0.0/16", Some("10.77.0.1")),
    );
    let body = &out.as_bytes()[super::super::socket::HEADER_LEN..];
    let whole = FoundRoute::read(body).unwrap();
    assert!(whole.is_ours());
    assert_eq!(whole.to, Some(prefix("10.96.0.0/16")));
    for cut in 0..body.len() {
        let found = FoundRoute::read(&body[..cut]);
        assert!(found.is_none_or(|found| found.to == whole.to), "{cut}");
        assert!(FoundAddress::read(&body[..cut]).is_none_or(|found| found.index != 0));
    }
}

#[test]
fn system_the_way_of_a_packet_is_the_route_that_it_takes() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (netns, other) = (Netns::new(), Netns::new());
    Netns::join((&netns, "10.1.0.1/24"), (&other, "10.1.0.2/24"));
    ip(&netns, "route add 10.9.0.0/16 via 10.1.0.2");
    ip(&netns, "route add unreachable 10.8.0.0/16");
    ip(&netns, "route add local 10.7.0.0/16 dev lo");
    netns.enter(|| {
        let routes = Routes::open().unwrap();
        for range in ["10.96.0.0/16", "fd96::/112"] {
            routes.add_local(&route(range, None)).unwrap();
        }
        let way = |to: &str| routes.way(to.parse().unwrap(), None).unwrap();
        for (to, range) in [
            ("10.96.3.4", "10.96.0.0/16"),
            ("fd96::7", "fd96::/112"),
            ("10.7.1.1", "10.7.0.0/16"),
        ] {
            let found = way(to).unwrap();
            assert_eq!(found.to, Some(prefix(range)), "{found:?}");
            assert_eq!(found.leads, Leads::Here);
            assert_eq!(found.is_ours, range != "10.7.0.0/16", "{found:?}");
        }
        let on = way("10.9.1.1").unwrap();
        assert_eq!(on.leads, Leads::On);
        assert_eq!(on.gateway, Some("10.1.0.2".parse().unwrap()));
        assert!(on.interface.unwrap().starts_with("veth"));
        assert_eq!(way("10.8.1.1"), None);
        assert_eq!(way("192.0.2.1"), None);
        assert_eq!(way("2001:db8::1"), None);
        assert!(!routes.has_advertised().unwrap());
    });
    ip(&netns, "-6 route add 2001:db8::/64 dev lo proto ra");
    netns.enter(|| assert!(Routes::open().unwrap().has_advertised().unwrap()));
}
