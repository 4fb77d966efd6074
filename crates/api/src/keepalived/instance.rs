//! What becomes of a `vrrp_instance`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use mainstay_ids::VipName;
use mainstay_ids::name::NAME_LEN_MAX;
use mainstay_model::VipSpec;
use mainstay_model::vip::{
    Floating, Hardware, OnDead, PRIORITY, Preempt, TrackSpec, Tracked, VIPS_MAX, VrrpVersion,
    check_together,
};

use crate::node::can_say;

use super::reasons::{self, Block};
use super::tracks::Tracks;
use super::tree::Statement;
use super::{Report, command};

/// keepalived's own.
const ADVERT: Duration = Duration::from_secs(1);

/// All floating addresses of a configuration.
pub(super) fn all(tree: &[Statement], report: &mut Report) -> Vec<VipSpec> {
    let mut tracks = Tracks::default();
    let mut version = VrrpVersion::V2;
    // Definitions may stand behind what names them.
    for statement in tree {
        match statement.key() {
            "vrrp_script" | "vrrp_track_process" => tracks.define(statement, report),
            "global_defs" => version = global(statement, version, report),
            _ => {}
        }
    }
    let mut vips: Vec<VipSpec> = Vec::new();
    let mut names = BTreeSet::new();
    for statement in tree {
        match statement.key() {
            "vrrp_script" | "vrrp_track_process" | "global_defs" => {}
            "vrrp_instance" if vips.len() == VIPS_MAX => {
                let message = format!("a node has up to {VIPS_MAX} floating addresses");
                let help = "let addresses move together: `virtual_ipaddress` takes several";
                report.wrong(&statement.place, message, help);
                return vips;
            }
            "vrrp_instance" => {
                let draft = Draft::of(statement, version, &tracks, report);
                let spec = draft.and_then(|draft| draft.finish(statement, &mut names, report));
                let Some(spec) = spec else { continue };
                vips.push(spec);
                for error in check_together(&vips) {
                    wrong(statement, &error.to_string(), report);
                }
            }
            key => {
                let why = reasons::of(Block::Top, key);
                report.leave(&statement.place, statement.words.join(" "), why);
            }
        }
    }
    vips
}

fn global(statement: &Statement, version: VrrpVersion, report: &mut Report) -> VrrpVersion {
    let mut found = version;
    for one in statement.inner() {
        match (one.key(), one.values()) {
            ("vrrp_version", _) => found = self::version(one, report).unwrap_or(found),
            ("script_user", [root, ..]) if root == "root" => {}
            (key, _) => {
                let why = if key == "script_user" {
                    "programs run as the account that runs Mainstay"
                } else {
                    reasons::of(Block::Global, key)
                };
                let key = format!("global_defs {}", one.words.join(" "));
                report.leave(&one.place, key, why);
            }
        }
    }
    found
}

fn version(statement: &Statement, report: &mut Report) -> Option<VrrpVersion> {
    match statement.values() {
        [two] if two == "2" => Some(VrrpVersion::V2),
        [three] if three == "3" => Some(VrrpVersion::V3),
        _ => {
            let message = format!("`{}` is 2 or 3", statement.key());
            report.wrong(&statement.place, message, "write 3");
            None
        }
    }
}

/// Whether it begins as the holder, for which keepalived forgets what it says of preempting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Master,
    Backup,
}

#[derive(Debug)]
struct Draft {
    within: String,
    interface: Option<String>,
    vrid: Option<NonZeroU8>,
    version: VrrpVersion,
    priority: NonZeroU8,
    advert: Duration,
    begins: Begins,
    preempt: Preempt,
    addresses: Vec<Floating>,
    peers: Vec<IpAddr>,
    hardware: Hardware,
    track: Vec<TrackSpec>,
    notify: Vec<String>,
}

impl Draft {
    /// Reads all lines of an instance. `None`: something was wrong, and was told.
    fn of(
        statement: &Statement,
        version: VrrpVersion,
        tracks: &Tracks,
        report: &mut Report,
    ) -> Option<Self> {
        let mut draft = Self {
            within: statement.words.join(" "),
            interface: None,
            vrid: None,
            version,
            priority: NonZeroU8::new(PRIORITY).unwrap_or(NonZeroU8::MIN),
            advert: ADVERT,
            begins: Begins::Backup,
            preempt: Preempt::Always,
            addresses: Vec::new(),
            peers: Vec::new(),
            hardware: Hardware::Own,
            track: Vec::new(),
            notify: Vec::new(),
        };
        let mut whole = true;
        let mut seen: BTreeMap<&str, &Statement> = BTreeMap::new();
        for one in statement.inner() {
            if one.block.is_none()
                && let Some(before) = seen.insert(one.key(), one)
            {
                let why = "it stands twice; the last one counts";
                let key = format!("{} {}", draft.within, before.words.join(" "));
                report.leave(&before.place, key, why);
            }
            whole &= draft.take(one, tracks, report).is_some();
        }
        whole.then_some(draft)
    }

    fn take(&mut self, one: &Statement, tracks: &Tracks, report: &mut Report) -> Option<()> {
        let value = one.values().first().map(String::as_str);
        match (one.key(), value) {
            ("state", Some("BACKUP")) | ("preempt", None) => {}
            ("state", Some("MASTER")) => {
                self.begins = Begins::Master;
                let why = "all begin as backups, and the election decides by `priority`";
                self.leave(one, why, report);
            }
            ("interface", Some(name)) => self.interface = Some(name.to_owned()),
            ("virtual_router_id", _) => self.vrid = Some(number(one, report)?),
            ("priority", _) => self.priority = number(one, report)?,
            ("version", _) => self.version = version(one, report)?,
            ("advert_int", _) => self.advert = decimal(one, report)?,
            ("nopreempt", _) => self.preempt = Preempt::Never,
            ("preempt_delay", _) => {
                let delay = decimal(one, report)?;
                if self.preempt != Preempt::Never && !delay.is_zero() {
                    self.preempt = Preempt::After(delay);
                }
            }
            ("use_vmac", name) => {
                self.hardware = Hardware::Virtual;
                if name.is_some() {
                    let why = "the interface and its hardware address are those of RFC 9568";
                    self.leave(one, why, report);
                }
            }
            ("virtual_ipaddress", _) => return self.addresses(one, report),
            ("unicast_peer", _) => return self.peers(one, report),
            ("track_interface", _) => self.track_interface(one, report),
            ("track_script" | "track_process", _) => {
                self.track.extend(tracks.named(one, &self.within, report));
            }
            ("notify", _) => {
                let Some((words, more)) = command::read(&one.raw) else {
                    let help = "write `notify \"/usr/local/bin/changed\"`";
                    report.wrong(&one.place, "the command cannot be read", help);
                    return None;
                };
                if more.iter().any(|user| user != "root") {
                    let why = "programs run as the account that runs Mainstay";
                    self.leave(one, why, report);
                }
                self.notify = words;
            }
            (key, _) => self.leave(one, reasons::of(Block::Instance, key), report),
        }
        Some(())
    }

    fn leave(&self, one: &Statement, why: &str, report: &mut Report) {
        let key = format!("{} {}", self.within, shown(one));
        report.leave(&one.place, key, why);
    }

    fn addresses(&mut self, block: &Statement, report: &mut Report) -> Option<()> {
        for one in block.inner() {
            let Some(floating) = floating(one.key()) else {
                let message = format!("`{}` is no address with its network", one.key());
                report.wrong(&one.place, message, "write it as in `10.0.0.100/32`");
                return None;
            };
            self.addresses.push(floating);
            let mut words = one.values().iter().map(String::as_str);
            while let Some(word) = words.next() {
                let why = match word {
                    "nodad" | "no_track" => continue,
                    "-nodad" => {
                        "an address is used at once, without looking for another that has it"
                    }
                    "home" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "use_vmac" => {
                        "an address has no flags"
                    }
                    _ => match (word, words.next()) {
                        ("dev", Some(dev)) if self.interface.as_deref() == Some(dev) => continue,
                        ("scope", Some("global")) => continue,
                        ("dev", _) => "addresses are on the `interface` of their table",
                        ("label", _) => "an address has no label; `mainstay vip` shows whose it is",
                        ("scope", _) => "addresses are valid everywhere",
                        ("brd" | "broadcast", _) => "the broadcast address is that of the network",
                        _ => "an address has no more than its network",
                    },
                };
                let key = format!("{} virtual_ipaddress {} {word}", self.within, one.key());
                report.leave(&one.place, key, why);
            }
        }
        Some(())
    }

    fn peers(&mut self, block: &Statement, report: &mut Report) -> Option<()> {
        for one in block.inner() {
            let Ok(peer) = one.key().parse() else {
                let message = format!("`{}` is no IP address", one.key());
                report.wrong(&one.place, message, "write it as in `10.0.0.2`");
                return None;
            };
            self.peers.push(peer);
            if !one.values().is_empty() {
                let key = format!("{} unicast_peer {}", self.within, one.words.join(" "));
                let why =
                    "a peer may be up to 16 routers away; its adverts have a TTL of 239 or more";
                report.leave(&one.place, key, why);
            }
        }
        Some(())
    }

    fn track_interface(&self, block: &Statement, report: &mut Report) {
        for one in block.inner() {
            let own = self.interface.as_deref() == Some(one.key());
            let why = match (own, one.values()) {
                (true, []) => continue,
                (true, _) => "without its interface it takes no part, whatever the weight",
                (false, _) => {
                    "its own interface is tracked, and no other; `track = [{ exec = [...] }]` can look at one"
                }
            };
            let key = format!("{} track_interface {}", self.within, one.words.join(" "));
            report.leave(&one.place, key, why);
        }
    }

    fn finish(
        self,
        statement: &Statement,
        names: &mut BTreeSet<String>,
        report: &mut Report,
    ) -> Option<VipSpec> {
        let place = &statement.place;
        let [given] = statement.values() else {
            let help = "write `vrrp_instance NAME {`";
            report.wrong(place, "a `vrrp_instance` has one name", help);
            return None;
        };
        let name = name(given, names);
        if name.as_str() != given {
            let why = format!("its name is `{name}`");
            report.leave(place, format!("vrrp_instance {given}"), why);
        }
        self.tell_missing(statement, report);
        let is_ipv6 = self
            .addresses
            .first()
            .is_some_and(|one| one.address.is_ipv6());
        let hardware = self.hardware(statement, report);
        let preempt = match self.begins {
            Begins::Master => Preempt::Always,
            Begins::Backup => self.preempt,
        };
        let spec = VipSpec {
            name,
            interface: self.interface?,
            vrid: self.vrid?,
            // keepalived has no IPv6 with version 2 either.
            version: if is_ipv6 {
                VrrpVersion::V3
            } else {
                self.version
            },
            addresses: self.addresses,
            priority: self.priority,
            preempt,
            advert: self.advert,
            peers: self.peers,
            hardware,
            track: self.track,
            on_dead: OnDead::YieldAtOnce,
            notify: self.notify,
        };
        is_right(&spec, statement, report).then_some(spec)
    }

    fn tell_missing(&self, statement: &Statement, report: &mut Report) {
        let mut missing = |key: &str, example: &str| {
            let message = format!("`{}` has no `{key}`", self.within);
            let help = format!("write `{key} {example}` in it");
            report.wrong(&statement.place, message, help);
        };
        if self.interface.is_none() {
            missing("interface", "eth0");
        }
        if self.vrid.is_none() {
            missing("virtual_router_id", "51");
        }
    }

    fn hardware(&self, statement: &Statement, report: &mut Report) -> Hardware {
        match self.hardware {
            Hardware::Virtual if !self.peers.is_empty() => {
                let key = format!("{} use_vmac", self.within);
                let why = "a virtual MAC address is of one link, and peers that are listed may be elsewhere";
                report.leave(&statement.place, key, why);
                Hardware::Own
            }
            Hardware::Own | Hardware::Virtual => self.hardware,
        }
    }
}

/// Whether a node may have it, and its file can say it; else why not is told.
fn is_right(spec: &VipSpec, statement: &Statement, report: &mut Report) -> bool {
    let errors = spec.check();
    for error in &errors {
        wrong(statement, &error.to_string(), report);
    }
    let sayable = sayable(spec);
    if !sayable {
        let within = statement.words.join(" ");
        let message = format!("a command of `{within}` has `${{` without `}}`, or is too long");
        let help = "put it into a script, and let keepalived run that";
        report.wrong(&statement.place, message, help);
    }
    errors.is_empty() && sayable
}

/// Whether a node file can say all its commands.
fn sayable(spec: &VipSpec) -> bool {
    let tracked = spec.track.iter().flat_map(|track| match &track.what {
        Tracked::Exec(command) => command.as_slice(),
        Tracked::Process(name) => std::slice::from_ref(name),
        Tracked::Gateway | Tracked::Tcp(_) => &[],
    });
    let texts = tracked.chain(&spec.notify).chain([&spec.interface]);
    texts.into_iter().all(|text| can_say(text))
}

/// What the model says of an instance, with its remedy apart.
fn wrong(statement: &Statement, text: &str, report: &mut Report) {
    let (message, help) = text.split_once("; ").unwrap_or((text, "change it"));
    let message = format!("`{}`: {message}", statement.words.join(" "));
    report.wrong(&statement.place, message, help);
}

/// A line as it is shown; what may be secret is not.
fn shown(statement: &Statement) -> String {
    if statement.block.is_some() {
        return statement.key().to_owned();
    }
    statement.words.join(" ")
}

/// The name of a table: what is no character of names becomes a hyphen.
fn name(given: &str, names: &mut BTreeSet<String>) -> VipName {
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let mut base: String = given.chars().map(legal).collect();
    if !base.starts_with(|c: char| c.is_ascii_lowercase()) {
        base.insert_str(0, "vip-");
    }
    for count in 1_usize.. {
        let end = if count == 1 {
            String::new()
        } else {
            format!("-{count}")
        };
        base.truncate(NAME_LEN_MAX - end.len());
        let text = format!("{}{end}", base.trim_end_matches('-'));
        if let Ok(name) = VipName::parse(&text)
            && names.insert(text)
        {
            return name;
        }
    }
    unreachable!("there are fewer tables than numbers")
}

fn floating(text: &str) -> Option<Floating> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let alone = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = match len {
        None => alone,
        Some(len) => len.parse().ok().filter(|len| *len <= alone)?,
    };
    Some(Floating {
        address,
        prefix_len,
    })
}

fn number(statement: &Statement, report: &mut Report) -> Option<NonZeroU8> {
    let value = statement.values().first();
    let number = value.and_then(|text| text.parse().ok());
    if number.is_none() {
        let message = format!("`{}` is a number from 1 to 255", statement.key());
        let help = format!("write for instance `{} 100`", statement.key());
        report.wrong(&statement.place, message, help);
    }
    number
}

/// Seconds with up to six digits behind a point, as keepalived reads them.
fn decimal(statement: &Statement, report: &mut Report) -> Option<Duration> {
    let value = statement.values().first().and_then(|text| micros(text));
    if value.is_none() {
        let message = format!(
            "`{}` is a number of seconds, down to milliseconds",
            statement.key()
        );
        let help = format!(
            "write for instance `{} 1` or `{} 0.1`",
            statement.key(),
            statement.key()
        );
        report.wrong(&statement.place, message, help);
    }
    value
}

fn micros(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() + part.len() == 0 || part.len() > 6 {
        return None;
    }
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let micros: u32 = format!("{part:0<6}").parse().ok()?;
    // A node file counts milliseconds.
    micros
        .is_multiple_of(1000)
        .then(|| Duration::new(whole.into(), micros * 1000))
}
