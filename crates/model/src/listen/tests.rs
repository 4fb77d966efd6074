use super::*;
use alloc::string::ToString;
use alloc::vec;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn draft() -> ListenDraft {
    let name = ListenName::parse("rabbitmq").expect("a name");
    let servers = ["10.0.0.1:5672", "10.0.0.2:5672"];
    let servers = servers.map(|text| ServerSpec::at(address(text)));
    ListenDraft::tcp(name, vec![address("0.0.0.0:5671")], servers.to_vec())
}

#[test]
fn all_problems_of_a_listener_are_told_at_once() {
    assert!(ListenSpec::new(draft()).is_ok());
    let mut bad = draft();
    bad.bind = vec![address("10.0.0.1:5672"), address("127.0.0.1:0")];
    bad.servers[1].name = bad.servers[0].name.clone();
    bad.servers
        .iter_mut()
        .for_each(|server| server.rank = Rank::Backup);
    bad.connections_max = 0;
    bad.accept_proxy = Some(Vec::new());
    bad.timeouts.connect = Duration::ZERO;
    let errors = ListenSpec::new(bad).expect_err("it is bad");
    let expected = [
        "`127.0.0.1:0` has no port",
        "the server `10.0.0.1:5672` is an address of the listener itself",
        "two servers are called `10.0.0.1:5672`",
        "all servers are `backup`",
        "`timeouts.connect` must be at least 1ms",
        "`connections` is 1 to 500000, not 0",
        "needs 1 to 64 networks",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn what_only_sessions_have_is_refused_of_requests() {
    let mut http = draft();
    http.mode = Mode::Http;
    http.check = Some(CheckSpec::of(CheckKind::Amqp));
    http.balance = Balance::RoundRobin;
    http.send_proxy = Some(ProxyVersion::V1);
    http.slow_start = Some(Duration::from_secs(1));
    http.timeouts.idle = Duration::from_secs(1);
    http.timeouts.half_open = Duration::from_secs(1);
    let errors = ListenSpec::new(http.clone()).expect_err("it is bad");
    let keys = errors.iter().map(|error| match error {
        ListenError::NotWithHttp { key, .. } => *key,
        other => panic!("{other}"),
    });
    let expected = [
        "balance = \"round-robin\"",
        "check.amqp",
        "send_proxy",
        "slow_start",
        "timeouts.idle",
        "timeouts.half_open",
    ];
    assert_eq!(keys.collect::<Vec<_>>(), expected);
    http.mode = Mode::Tcp;
    assert!(ListenSpec::new(http).is_ok(), "sessions have all of it");
    let mut plain = draft();
    plain.mode = Mode::Http;
    plain.balance = Balance::Source;
    assert!(ListenSpec::new(plain).is_ok());
}

#[test]
fn the_name_that_an_address_gives_is_a_name() {
    for text in ["10.0.0.1:5672", "[fd00::1]:80", "[fe80::1%3]:65535"] {
        let name = ServerName::of_address(address(text));
        assert_eq!(ServerName::parse(name.as_str()), Ok(name));
    }
    assert_eq!(ServerName::parse("a b"), Err(WordError::ServerName));
}
