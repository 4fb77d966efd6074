//! Where it is measured: a node, behind it the host of its instances and a foreign client, each a network
//! namespace that ends with the bench.

use anyhow::{Context as _, Result, bail};
use mainstay_control::forward::{Share, Spread, Staying};
use mainstay_model::{Network, forward::Ranges};
use mainstay_testkit::{Netns, program};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

/// Service addresses, which the node takes for its own.
const RANGE: &str = "10.96.0.0/16";
/// Instances, which the host takes for its own.
const INSTANCES: &str = "10.77.0.0/16";
pub(super) const SERVICE_PORT: u16 = 8080;

/// Otherwise some ten thousand connections per second fill the table of connections, and use up the ports.
const SETTINGS: [(&str, &str); 4] = [
    ("netfilter/nf_conntrack_tcp_timeout_close", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
    ("ipv4/ip_local_port_range", "10000 65000"),
    ("ipv4/ip_forward", "1"),
];

pub(super) struct Field {
    pub(super) node: Netns,
    pub(super) host: Netns,
    pub(super) client: Netns,
}

impl Field {
    pub(super) fn new() -> Result<Self> {
        let [node, host, client] = [(); 3].map(|()| Netns::new());
        Netns::join((&node, "10.1.0.1/24"), (&host, "10.1.0.2/24"));
        Netns::join((&node, "10.2.0.1/24"), (&client, "10.2.0.2/24"));
        let routes = [
            (&node, format!("{INSTANCES} via 10.1.0.2")),
            (&node, format!("local {RANGE} dev lo src 10.1.0.1")),
            (&host, format!("local {INSTANCES} dev lo")),
            (&host, "default via 10.1.0.1".to_owned()),
            (&client, "default via 10.2.0.1".to_owned()),
        ];
        for (netns, route) in routes {
            let mut ip = netns.command(&program("ip"));
            crate::cargo::run(ip.args(["route", "add"]).args(route.split(' ')))?;
        }
        for (netns, settings) in [(&node, &SETTINGS[..]), (&client, &SETTINGS[2..3])] {
            netns.enter(|| set(settings))?;
        }
        Ok(Self { node, host, client })
    }

    /// Runs `nft` with a file of its own language, on one of them.
    pub(super) fn nft(netns: &Netns, text: &str) -> Result<()> {
        netns.enter(|| fed(&mut Command::new(program("nft")), &["-f", "-"], text))
    }
}

fn set(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// Runs a program that reads what it has to do.
pub(super) fn fed(command: &mut Command, arguments: &[&str], text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::process::Stdio;
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    // One that does not read it says why.
    let written = child
        .stdin
        .take()
        .map(|mut to| to.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(written.transpose().map(|_| ())?);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}", command.get_program().display(), said.trim_end())
}

pub(super) fn ranges() -> Result<Ranges> {
    Ok(Ranges::new(vec![Network::parse(RANGE)?])?)
}

/// Until the next turn.
#[expect(
    clippy::disallowed_methods,
    reason = "clients and changes have a pace, in threads of their own that wait for nothing else"
)]
pub(super) fn pause(lasts: Duration) {
    std::thread::sleep(lasts);
}

/// A service and who is to answer it.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    pub(super) instances: Vec<SocketAddr>,
}

impl Service {
    /// With three instances, each with an address of its own. Numbers count from 1.
    pub(super) fn numbered(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        let instances = (0..3).map(|index| instance(number, 8000 + index));
        Self {
            address: (Ipv4Addr::new(10, 96, high, low), SERVICE_PORT).into(),
            instances: instances.collect(),
        }
    }

    pub(super) fn spread(&self) -> Spread {
        even(&self.instances)
    }
}

/// An address that the host takes for its own.
pub(super) fn instance(number: u16, port: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    (Ipv4Addr::new(10, 77, high, low), port).into()
}

pub(super) fn even(instances: &[SocketAddr]) -> Spread {
    let weights = vec![1; instances.len()];
    weighed(instances, &weights)
}

pub(super) fn weighed(instances: &[SocketAddr], weights: &[u64]) -> Spread {
    let pairs = instances.iter().zip(weights);
    let mut shares: Vec<Share> = pairs
        .map(|(to, weight)| Share {
            to: *to,
            weight: *weight,
        })
        .collect();
    shares.sort_unstable_by_key(|share| share.to);
    let staying = Staying::Free;
    Spread { staying, shares }
}
