//! The rules of one service address, as `nft -f` and `iptables-restore` load them: to be read, and to
//! do by hand on a host what Mainstay does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use mainstay_control::forward::{Draw, Slots};
use mainstay_kernel::netlink::Prefix;

use crate::nft::SOURCE_SEED;

/// The chain that [`iptables`] writes.
const CHAIN: &str = "MAINSTAY-SERVICE";

/// Our rules as far as they concern one address, in a table of this name. `range` is where service
/// addresses lie.
pub fn nft(table: &str, range: Prefix, address: SocketAddr, slots: &Slots) -> String {
    let of = Words::of(address);
    let count = slots.class().slots();
    let (port, key) = (address.port(), address.ip());
    let (class, draw) = of.class(slots);
    let elements = elements(address, slots);
    let Words {
        digit,
        address: ip,
        kind,
        protocol,
        icmp,
    } = of;
    let ours = format!("ct original {ip} daddr {range}");
    let find = of.lookups(range);
    let led = format!("    ct status dnat {ours} goto led{digit}\n");
    let refuse =
        format!("meta nfproto {protocol} {ip} daddr {range} ct status ! dnat goto refuse{digit}\n");
    format!(
        "# for a host that has no such table, after: ip route add local {range} dev lo
table inet {table} {{
  map services{digit} {{ type {kind} . inet_service : verdict; counter; }}
  map slots{digit} {{
    typeof {ip} daddr . th dport . numgen random mod {count} : {ip} daddr . th dport
    elements = {{
{elements}
    }}
  }}
  set dead{digit} {{ type {kind} . inet_service; }}
  chain {class} {{
    meta l4proto {{ tcp, udp }} dnat {ip} to {ip} daddr . th dport . {draw} map @slots{digit}
  }}
  chain refuse{digit} {{
    meta l4proto tcp tcp flags & rst != 0 accept
    meta l4proto {icmp} accept
    meta l4proto tcp reject with tcp reset
    reject with icmpx port-unreachable
  }}
  chain led{digit} {{
    meta l4proto tcp {ip} daddr . th dport @dead{digit} reject with tcp reset
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat - 1; policy accept;
{find}  }}
  chain output {{
    type nat hook output priority -101; policy accept;
{find}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oif != \"lo\" {ours} fib saddr type != local masquerade
    oif != \"lo\" meta nfproto {protocol} {ip} saddr {range} masquerade
  }}
  chain guard-output {{
    type filter hook output priority filter; policy accept;
{led}    meta l4proto tcp {refuse}    oif != \"lo\" {refuse}  }}
  chain guard-forward {{
    type filter hook forward priority filter; policy accept;
{led}    {refuse}  }}
  chain guard-input {{
    type filter hook input priority filter; policy accept;
    {refuse}  }}
}}
add element inet {table} services{digit} {{ {key} . {port} : goto {class} }}
"
    )
}

/// Which instance has which slot.
fn elements(address: SocketAddr, slots: &Slots) -> String {
    let (key, port) = (address.ip(), address.port());
    let owners = slots.owners().iter().enumerate();
    let owners = owners.map(|(slot, to)| {
        let (to, at) = (to.ip(), to.port());
        format!("      {key} . {port} . {slot} : {to} . {at}")
    });
    owners.collect::<Vec<String>>().join(",\n")
}

/// How a version of IP is written.
struct Words {
    digit: char,
    address: &'static str,
    kind: &'static str,
    protocol: &'static str,
    icmp: &'static str,
}

impl Words {
    /// The rules that translate: what a service has, and what none has.
    fn lookups(&self, range: Prefix) -> String {
        let (ip, digit, protocol) = (self.address, self.digit, self.protocol);
        let both = ["tcp", "udp"].map(|of| format!("meta nfproto {protocol} meta l4proto {of}"));
        let find = both
            .each_ref()
            .map(|which| format!("    {which} {ip} daddr . th dport vmap @services{digit}\n"));
        let settle = both.map(|which| {
            format!("    {which} {ip} daddr {range} dnat {ip} to {ip} daddr : th dport\n")
        });
        [find.concat(), settle.concat()].concat()
    }

    /// The chain of a class, and how it draws.
    fn class(&self, slots: &Slots) -> (String, String) {
        let (digit, count) = (self.digit, slots.class().slots());
        match slots.class().draw() {
            Draw::Random => (
                format!("random{digit}-{count}"),
                format!("numgen random mod {count}"),
            ),
            Draw::Source => {
                let ip = self.address;
                let hash = format!("jhash {ip} saddr mod {count} seed {SOURCE_SEED:#x}");
                (format!("source{digit}-{count}"), hash)
            }
        }
    }

    fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self {
                digit: '4',
                address: "ip",
                kind: "ipv4_addr",
                protocol: "ipv4",
                icmp: "icmp",
            },
            SocketAddr::V6(_) => Self {
                digit: '6',
                address: "ip6",
                kind: "ipv6_addr",
                protocol: "ipv6",
                icmp: "ipv6-icmp",
            },
        }
    }
}

/// The same by N rules for N instances, tried from i = N down to 1: of equal instances the i-th takes a
/// connection with the probability 1/i, so that the first takes all that is left. Of unequal ones each
/// takes its own part of what it and those below it have.
///
/// Clients do not stay with an instance: iptables has no hash that chooses among targets.
pub fn iptables(address: SocketAddr, draw: Draw, shares: &[(SocketAddr, u64)]) -> String {
    let mut out = String::new();
    let (program, bits) = match address {
        SocketAddr::V4(_) => ("iptables-restore", 32),
        SocketAddr::V6(_) => ("ip6tables-restore", 128),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# {program} --noflush");
    if draw == Draw::Source {
        out.push_str("# clients do not stay with an instance: iptables has no hash for it\n");
    }
    let _ = writeln!(out, "*nat\n:{CHAIN} - [0:0]");
    for hook in ["PREROUTING", "OUTPUT"] {
        for protocol in ["tcp", "udp"] {
            let (ip, port) = (address.ip(), address.port());
            let _ = writeln!(
                out,
                "-A {hook} -d {ip}/{bits} -p {protocol} -m {protocol} --dport {port} -j {CHAIN}"
            );
        }
    }
    let mut left: u64 = shares.iter().map(|(_, weight)| weight).sum();
    let shares: BTreeMap<SocketAddr, u64> = shares.iter().copied().collect();
    for (index, (to, weight)) in shares.iter().enumerate().rev() {
        let chance = if index == 0 {
            String::new()
        } else {
            format!(
                " -m statistic --mode random --probability {}",
                decimal(*weight, left)
            )
        };
        left = left.saturating_sub(*weight);
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(
                out,
                "-A {CHAIN} -p {protocol}{chance} -j DNAT --to-destination {to}"
            );
        }
    }
    let range = format!("{}/{bits}", address.ip());
    let _ = writeln!(
        out,
        "-A POSTROUTING ! -o lo -m conntrack --ctorigdst {range} -j MASQUERADE\nCOMMIT"
    );
    out
}

/// A part of all with ten digits behind the point: finer than the 31 bits that the kernel draws.
fn decimal(part: u64, of: u64) -> String {
    const SCALE: u128 = 10_000_000_000;
    let scaled = (u128::from(part) * SCALE + u128::from(of) / 2)
        .checked_div(u128::from(of))
        .unwrap_or(0);
    format!("{}.{:010}", scaled / SCALE, scaled % SCALE)
}
