//! A node with a back end, and what stands around it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use mainstay_control::forward::{Batch, Share, Spread, Staying};
use mainstay_model::Network;
use mainstay_model::forward::{ForwardSettings, Ranges};
use mainstay_testkit::{Netns, program};

use crate::back_end::{BackEnd, ForwardError, Found};
use crate::iptables::{self, Iptables, Variant};
use crate::nft::{self, Nft};
use crate::userspace::{self, Userspace};

pub(crate) const NEEDS_ROOT: &str = "needs root: makes network namespaces and rules in them";
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Where the node itself listens.
pub(crate) const OWN: &str = "10.96.0.254:5353";
/// The last is the one of the published example.
const RANGES: [&str; 3] = ["10.96.0.0/16", "fd96::/112", "10.10.1.0/24"];

/// All that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nft,
    Legacy,
    OverNft,
    Userspace,
}

impl Kind {
    /// Whether rules outlive the process that made them.
    pub(crate) fn is_kernel(self) -> bool {
        match self {
            Self::Nft | Self::Legacy | Self::OverNft => true,
            Self::Userspace => false,
        }
    }

    /// In the namespace of the calling thread.
    pub(crate) fn start(self) -> Result<Box<dyn BackEnd>, ForwardError> {
        let iptables = |variant| {
            let settings = iptables::Settings {
                variant: Some(variant),
                ..iptables::Settings::of(&settings())
            };
            Ok::<Box<dyn BackEnd>, _>(Box::new(Iptables::start(settings)?))
        };
        match self {
            Self::Nft => {
                let settings = nft::Settings::of(&settings()).unwrap();
                Ok(Box::new(Nft::start(settings)?))
            }
            Self::Legacy => iptables(Variant::Legacy),
            Self::OverNft => iptables(Variant::Nft),
            Self::Userspace => {
                let settings = userspace::Settings::of(&settings());
                Ok(Box::new(Userspace::start(settings)))
            }
        }
    }
}

/// A node whose service addresses are its own.
pub(crate) struct Host {
    pub(crate) back_end: Box<dyn BackEnd>,
    pub(crate) node: Netns,
}

impl Host {
    pub(crate) fn new(kind: Kind) -> Self {
        let node = network();
        let back_end = node.enter(|| kind.start()).unwrap();
        Self { back_end, node }
    }

    pub(crate) fn enter<T: Send>(&mut self, deed: impl FnOnce(&mut dyn BackEnd) -> T + Send) -> T {
        let back_end = &mut self.back_end;
        self.node.enter(|| deed(&mut **back_end))
    }

    #[track_caller]
    pub(crate) fn apply(&mut self, batch: &Batch) {
        self.enter(|back_end| back_end.apply(batch)).unwrap();
    }

    #[track_caller]
    pub(crate) fn serve(&mut self, service: &str, spread: Spread) {
        self.apply(&serve(service, spread));
    }

    #[track_caller]
    pub(crate) fn check(&mut self) -> Found {
        self.enter(|back_end| back_end.check()).unwrap()
    }

    /// As the next process would.
    pub(crate) fn start_again(self, kind: Kind) -> Self {
        let Self { back_end, node } = self;
        drop(back_end);
        let back_end = node.enter(|| kind.start()).unwrap();
        Self { back_end, node }
    }
}

/// A namespace with service addresses that are its own.
pub(crate) fn network() -> Netns {
    let node = Netns::new();
    for line in [
        "ip route add local 10.96.0.0/16 dev lo",
        "ip route add local 10.10.1.0/24 dev lo",
        "ip -6 route add local fd96::/112 dev lo",
    ] {
        run(&node, line);
    }
    node
}

pub(crate) fn ranges() -> Ranges {
    let networks = RANGES.map(|text| Network::parse(text).unwrap());
    Ranges::new(networks.to_vec()).unwrap()
}

fn settings() -> ForwardSettings {
    ForwardSettings {
        own: vec![address(OWN)],
        ..ForwardSettings::new(ranges())
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[track_caller]
pub(crate) fn run(netns: &Netns, line: &str) -> String {
    let mut words = line.split(' ');
    let of = match words.next() {
        Some("ip") => program("ip"),
        Some("iptables-legacy") => program("iptables-legacy"),
        Some("iptables-nft") => program("iptables-nft"),
        Some("nft") => program("nft"),
        other => panic!("`{other:?}` is not known here"),
    };
    let mut command = netns.command(&of);
    let output = command.args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}`: {said}");
    text
}

pub(crate) fn even(to: &[SocketAddr]) -> Spread {
    weighed(&to.iter().map(|to| (*to, 1)).collect::<Vec<_>>())
}

pub(crate) fn weighed(to: &[(SocketAddr, u64)]) -> Spread {
    let share = |(to, weight): &(SocketAddr, u64)| Share {
        to: *to,
        weight: *weight,
    };
    let mut shares: Vec<Share> = to.iter().map(share).collect();
    shares.sort_unstable_by_key(|share| share.to);
    let staying = Staying::Free;
    Spread { staying, shares }
}

pub(crate) fn serve(service: &str, spread: Spread) -> Batch {
    let services = vec![(address(service), spread)];
    Batch {
        services,
        ..Batch::default()
    }
}

/// Instances that tell each client where they listen, and say what it says.
pub(crate) fn instances(netns: &Netns, at: &[&str]) -> Vec<SocketAddr> {
    let listen = |at: &&str| {
        let listener = netns.enter(|| TcpListener::bind(at).unwrap());
        let own = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                std::thread::spawn(move || {
                    client.write_all(format!("{own}\n").as_bytes()).ok();
                    let mut same = client.try_clone().unwrap();
                    io::copy(&mut client, &mut same).ok();
                });
            }
        });
        own
    };
    at.iter().map(listen).collect()
}

pub(crate) fn connect(netns: &Netns, to: &str) -> io::Result<TcpStream> {
    let to = address(to);
    let stream = netns.enter(|| TcpStream::connect_timeout(&to, DEADLINE))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// The line that an instance says.
pub(crate) fn answer(mut stream: &TcpStream) -> io::Result<SocketAddr> {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData)?;
    text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// In thousandths.
pub(crate) fn shares(netns: &Netns, to: &str, count: u32) -> BTreeMap<SocketAddr, u32> {
    let to = address(to);
    let mut counts = BTreeMap::new();
    netns.enter(|| {
        for _ in 0..count {
            let stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            *counts.entry(answer(&stream).unwrap()).or_insert(0) += 1;
        }
    });
    let all = counts.values_mut();
    all.for_each(|own| *own = *own * 1000 / count);
    counts
}

pub(crate) fn is_refused(result: &io::Result<TcpStream>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether whoever sends is told that nobody is there any more.
pub(crate) fn is_reset(mut stream: &TcpStream) -> bool {
    let told = stream
        .write_all(b"hello")
        .and_then(|()| stream.read(&mut [0; 8]));
    told.is_err_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        )
    })
}

/// Whether an instance still says what it is told.
pub(crate) fn is_alive(mut stream: &TcpStream) -> bool {
    let mut said = [0; 5];
    let told = stream
        .write_all(b"hello")
        .and_then(|()| stream.read_exact(&mut said));
    told.is_ok() && said == *b"hello"
}
