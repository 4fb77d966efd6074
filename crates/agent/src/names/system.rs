//! Whom this machine asked for names before: the servers in its resolv.conf.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mainstay_model::directory::UPSTREAMS_MAX;

/// Where the C library reads.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where systemd-resolved writes whom it asks itself.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The address at which systemd-resolved listens for programs of its machine. It asks whom it was told
/// to ask, and that may be us.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// The longest file that is read: what people write has some lines.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// The port of servers that a file names.
const PORT: u16 = 53;

/// The files in which a machine's servers stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The C library's.
    pub path: PathBuf,
    /// Where those stand whom systemd-resolved asks, used where the first names nobody but it.
    pub behind_stub: PathBuf,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            path: RESOLV_CONF.into(),
            behind_stub: BEHIND_STUB.into(),
        }
    }
}

impl ResolvConf {
    /// The servers, without ourselves, who listen at `own`: whoever follows our documentation names us
    /// there. Blocks for as long as the disk takes.
    pub(super) fn servers(&self, own: SocketAddr) -> io::Result<Vec<SocketAddr>> {
        let named = read(&self.path)?;
        let servers = if !named.is_empty() && named.iter().all(|server| server.ip() == STUB) {
            // By them we are asked by nobody but programs; by the stub itself, maybe in a circle.
            match read(&self.behind_stub) {
                Ok(behind) if !behind.is_empty() => behind,
                Ok(_) | Err(_) => named,
            }
        } else {
            named
        };
        let others = servers.into_iter().filter(|server| *server != own);
        Ok(others.take(UPSTREAMS_MAX).collect())
    }
}

fn read(path: &Path) -> io::Result<Vec<SocketAddr>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_LEN_MAX).read_to_end(&mut text)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The servers of a resolv.conf(5), in order. What is no address is passed over, as the C library does;
/// so is one with a zone (`fe80::1%eth0`).
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let named = words.next() == Some("nameserver");
        let ip: IpAddr = words.next()?.parse().ok()?;
        named.then_some(SocketAddr::new(ip, PORT))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;
    use std::fs;

    const OURS: &str = "10.96.0.53:53";

    fn servers(conf: &ResolvConf) -> Vec<String> {
        let own = OURS.parse().expect("an address");
        let servers = conf.servers(own).expect("it is there");
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_servers_are_those_of_the_file_without_ourselves() {
        let dir = TempDir::new("resolv");
        let conf = ResolvConf {
            path: dir.join("resolv.conf"),
            behind_stub: dir.join("behind"),
        };
        let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 10.96.0.53\n\
                    nameserver  192.0.2.1  # the first\nnameserver nonsense\nnameserver 2001:db8::1\n\
                    options ndots:2\nnameserver fe80::1%eth0\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        fs::write(&conf.path, text).unwrap();
        assert_eq!(
            servers(&conf),
            ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]
        );
        fs::write(&conf.path, "nameserver 10.96.0.53\n").unwrap();
        assert!(servers(&conf).is_empty());
    }

    #[test]
    fn whom_systemd_resolved_asks_is_asked_instead_of_its_stub() {
        let dir = TempDir::new("resolv");
        let conf = ResolvConf {
            path: dir.join("resolv.conf"),
            behind_stub: dir.join("behind"),
        };
        fs::write(&conf.path, "nameserver 127.0.0.53\noptions edns0\n").unwrap();
        assert_eq!(
            servers(&conf),
            ["127.0.0.53:53"],
            "nothing is known behind it"
        );
        fs::write(
            &conf.behind_stub,
            "nameserver 10.96.0.53\nnameserver 192.0.2.1\n",
        )
        .unwrap();
        assert_eq!(servers(&conf), ["192.0.2.1:53"]);
    }
}
