use super::*;

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use mainstay_forward::host::{setting, survey};
use mainstay_ids::{Attempt, Epoch, Generation, Revision, ServiceName};
use mainstay_kernel::netlink::Prefix;
use mainstay_model::Network;
use mainstay_model::routing::{Endpoint, EndpointHealth, ServiceRoutes};
use mainstay_testkit::{Netns, TempDir, is_root, program, skip, wait_until};

const NEEDS_ROOT: &str = "needs root: makes network namespaces, and rules and settings in them";
const SERVICE: &str = "10.96.0.1:8080";
const INSTANCE: &str = "10.78.0.2:9001";
/// No service leads there.
const STRANGER: &str = "10.78.0.2:9002";
const FORWARDING: &str = "net.ipv4.ip_forward";
/// For a packet that is dropped; one that is not takes a millisecond.
const LOST: Duration = Duration::from_millis(500);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(netns: &Netns, line: &str) {
    let mut command = netns.command(&program("ip"));
    let status = command.args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

fn routing(revision: u64, instances: &[&str]) -> Routing {
    let service = ServiceName::parse("web").unwrap();
    let endpoint = |(number, at): (u64, &&str)| Endpoint {
        instance: InstanceId {
            service: service.clone(),
            number,
        },
        attempt: Attempt(1),
        version: mainstay_ids::Version(1),
        address: address(at),
        health: EndpointHealth::Passing,
        handle: None,
        intake: mainstay_model::Intake::default(),
    };
    let routes = ServiceRoutes {
        service: service.clone(),
        http: None,
        address: Some(address(SERVICE)),
        health_path: None,
        endpoints: (1..).zip(instances).map(endpoint).collect(),
        unavailable: None,
        dead: Vec::new(),
        traffic: mainstay_model::Traffic::default(),
        rewrites: Vec::new(),
        split: None,
    };
    Routing {
        generation: Generation {
            epoch: Epoch(1),
            revision: Revision(revision),
        },
        services: vec![routes],
    }
}

/// A node between a client and the host of an instance.
struct Field {
    client: Netns,
    node: Netns,
    host: Netns,
    state: TempDir,
    settings: ForwardSettings,
}

impl Field {
    fn new() -> Self {
        let (client, node, host) = (Netns::new(), Netns::new(), Netns::new());
        Netns::join((&node, "10.77.0.1/24"), (&client, "10.77.0.2/24"));
        Netns::join((&node, "10.78.0.1/24"), (&host, "10.78.0.2/24"));
        ip(&client, "route add default via 10.77.0.1");
        ip(&host, "route add default via 10.78.0.1");
        for at in [INSTANCE, STRANGER] {
            let listener = host.enter(|| TcpListener::bind(address(at)).unwrap());
            // Until the test ends.
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    std::io::Write::write_all(&mut stream, b"here").ok();
                }
            });
        }
        let range = Network::parse("10.96.0.0/16").unwrap();
        Self {
            client,
            node,
            host,
            state: TempDir::new("works"),
            settings: ForwardSettings {
                back_end: Some(BackEndKind::Nft),
                ..ForwardSettings::new(Ranges::new(vec![range]).unwrap())
            },
        }
    }

    fn start(&self) -> Works {
        let source = IpAddr::from([10, 77, 0, 1]);
        self.node
            .enter(|| {
                Works::start(
                    &self.settings,
                    self.state.path(),
                    source,
                    ForwardSeams::default(),
                    Diary::default(),
                )
            })
            .unwrap()
    }

    fn turn(&self, works: &mut Works, input: Input) {
        self.node.enter(|| works.turn(input));
    }

    fn setting(&self) -> Option<String> {
        self.node.enter(|| setting(FORWARDING))
    }

    fn reach(&self, to: &str) -> Result<(), String> {
        let asked = self.client.enter(|| {
            let mut stream = TcpStream::connect_timeout(&address(to), LOST)?;
            stream.set_read_timeout(Some(LOST))?;
            let mut said = [0; 4];
            stream.read_exact(&mut said)
        });
        asked.map_err(|error| error.to_string())
    }

    fn switch(&self, value: &str) {
        let write = || std::fs::write("/proc/sys/net/ipv4/ip_forward", value).unwrap();
        self.node.enter(write);
    }
}

#[test]
fn system_the_host_forwards_connections_to_services_and_nothing_else_when_it_has_to() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let field = Field::new();
    field.switch("0");
    let mut works = field.start();
    field.turn(&mut works, Input::Routes(routing(1, &[INSTANCE])));
    field.reach(SERVICE).unwrap_err();
    let instances = works.instances().unwrap();
    let needed = field.node.enter(|| {
        let range = Prefix::new(IpAddr::from([10, 96, 0, 0]), 16).unwrap();
        survey(&[range], &instances).unforwarded()
    });
    assert_eq!(needed, [Version::V4]);
    field.node.enter(|| works.open(&needed));
    assert_eq!(field.setting().as_deref(), Some("1"));
    field.reach(SERVICE).unwrap();
    field.reach(STRANGER).unwrap_err();
    field.reach(INSTANCE).unwrap_err();

    // Rules that are flushed come back with the limit.
    let mut nft = field.node.command(&program("nft"));
    assert!(nft.args(["flush", "ruleset"]).status().unwrap().success());
    field.turn(&mut works, Input::Tick);
    field.reach(SERVICE).unwrap();
    field.reach(STRANGER).unwrap_err();

    // So does the next agent.
    drop(works);
    let mut works = field.start();
    field.turn(&mut works, Input::Routes(routing(2, &[INSTANCE])));
    field.reach(SERVICE).unwrap();
    field.reach(STRANGER).unwrap_err();

    // Whoever switches it off again is not fought.
    field.switch("0");
    field.node.enter(|| works.open(&[Version::V4]));
    assert_eq!(field.setting().as_deref(), Some("0"));
    field.switch("1");

    field.turn(&mut works, Input::Routes(routing(3, &[])));
    wait_until(Duration::from_secs(10), "nothing is under way", || {
        field.turn(&mut works, Input::Tick);
        match works.in_flight.len() {
            0 => Ok(()),
            _ => Err(format!("{:?}", works.in_flight)),
        }
    });
    assert!(field.node.enter(move || works.wind_up()));
    assert_eq!(field.setting().as_deref(), Some("0"));
}

#[test]
fn system_a_host_that_may_not_be_switched_on_is_as_its_owner_wants_it() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut field = Field::new();
    field.switch("0");
    let mut works = field.start();
    field.turn(&mut works, Input::Routes(routing(1, &[INSTANCE])));
    field.node.enter(|| works.open(&[Version::V4]));
    assert_eq!(field.setting().as_deref(), Some("1"));
    drop(works);
    // What an earlier agent did is undone.
    field.settings.opening = Opening::Never;
    let mut works = field.start();
    assert_eq!(field.setting().as_deref(), Some("0"));
    field.turn(&mut works, Input::Routes(routing(2, &[INSTANCE])));
    field.node.enter(|| works.open(&[Version::V4]));
    assert_eq!(field.setting().as_deref(), Some("0"));
    // Its owner makes it a router, for everybody.
    field.switch("1");
    field.turn(&mut works, Input::Tick);
    field.reach(SERVICE).unwrap();
    field.reach(STRANGER).unwrap();
    assert_eq!(
        field.host.enter(|| setting(FORWARDING)).as_deref(),
        Some("0")
    );
}

/// As many services as one of which the promise speaks has beside it.
const CROWD: u16 = 5000;
const CHANGES: u16 = 20;

/// Services with three instances each; one of them has another number of attempts with each revision.
fn crowd(revision: u64, changed: u16) -> Routing {
    let one = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let base = 3 * (u32::from(number) % 80);
        let instances: Vec<SocketAddr> = (0..3_u32)
            .map(|index| {
                let [.., last] = (base + index + 1).to_be_bytes();
                let port = 9000 + number / 80 * 8 + u16::from(number == changed && index == 0);
                SocketAddr::from(([10, 78, 0, last], port))
            })
            .collect();
        let texts: Vec<String> = instances.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut routes = routing(revision, &texts).services.remove(0);
        routes.service = ServiceName::parse(&format!("s{number:05}")).unwrap();
        for endpoint in &mut routes.endpoints {
            endpoint.instance.service = routes.service.clone();
        }
        routes.address = Some(SocketAddr::from(([10, 96, high, low], 8080)));
        routes
    };
    Routing {
        services: (0..=CROWD).map(one).collect(),
        ..routing(revision, &[])
    }
}

#[test]
fn system_a_change_of_one_among_thousands_writes_a_line_and_touches_one() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let field = Field::new();
    let mut works = field.start();
    field.turn(&mut works, Input::Routes(crowd(1, u16::MAX)));
    field.turn(&mut works, Input::Tick);
    assert_eq!(works.trouble(), None);
    let len = |name: &str| std::fs::metadata(field.state.join(name)).unwrap().len();
    let whole = std::fs::read(field.state.join("forward.json")).unwrap();
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let routing = crowd(u64::from(change) + 2, change * 200);
        let text = serde_json::to_vec(&routing).unwrap();
        let before = len("forward.changes");
        let began = Instant::now();
        let routing: Routing = serde_json::from_slice(&text).unwrap();
        let read = began.elapsed();
        let began = Instant::now();
        field.turn(&mut works, Input::Routes(routing));
        times.push((began.elapsed(), read));
        assert_eq!(works.trouble(), None);
        let generation = works.ack(ConsumerId {
            name: "test".to_owned(),
            incarnation: mainstay_ids::Incarnation(1),
        });
        assert_eq!(
            generation.generation.unwrap().revision,
            Revision(u64::from(change) + 2)
        );
        // One that left and one that came, of this service and of the one that was changed before.
        let added = len("forward.changes") - before;
        assert!((1..1500).contains(&added), "{added} bytes");
    }
    assert_eq!(
        std::fs::read(field.state.join("forward.json")).unwrap(),
        whole
    );
    times.sort_unstable();
    let (half, read) = times[times.len() / 2];
    let (most, _) = times[times.len() - 1];
    println!(
        "a change of one among {} services: {half:.2?} for half of them, {most:.2?} at most; reading the routes before: \
         {read:.2?}",
        u32::from(CROWD) + 1
    );
    // The next agent knows the same places.
    let mut file = PlacesFile::in_state(field.state.path());
    let mut known = file.load().unwrap();
    // Those to which nothing is under way any more are taken out with the next change.
    known.retain(|place| !works.left.contains(&place.address));
    let mut places = works.course.places();
    known.sort_by_key(|place| place.address);
    places.sort_by_key(|place| place.address);
    assert!(
        known == places,
        "{} and {} places",
        known.len(),
        places.len()
    );
}
