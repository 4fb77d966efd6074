//! Floating addresses as a configuration of keepalived.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay_model::VipSpec;
use mainstay_model::vip::{Hardware, OnDead, Preempt, TrackSpec, Tracked, VrrpVersion};

use super::{command, tracks};

/// The longest delay that keepalived knows.
const PREEMPT_DELAY_MAX: Duration = Duration::from_secs(1000);

/// What keepalived can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The configuration.
    pub text: String,
    /// What it does not say.
    pub left: Vec<Unsaid>,
}

/// Something that keepalived does not know, or knows otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaid {
    /// The key in the node file.
    pub key: String,
    /// Why it is left out, or what it is instead.
    pub why: &'static str,
}

/// Writes a configuration of which [`super::parse`] makes the same again, but for what is listed. Of what it needs for
/// keepalived alone, that lists `enable_script_security`.
pub fn export(vips: &[VipSpec]) -> Exported {
    let mut writer = Writer::default();
    writer.line(format_args!("# Written by `mainstay export keepalived`.\n"));
    let runs = |track: &TrackSpec| matches!(track.what, Tracked::Tcp(_) | Tracked::Exec(_));
    if vips
        .iter()
        .any(|vip| !vip.notify.is_empty() || vip.track.iter().any(runs))
    {
        // As whom Mainstay runs programs; without it keepalived looks for another account. And it wants to look at who
        // may change them.
        let lines = "    script_user root\n    enable_script_security";
        writer.line(format_args!("global_defs {{\n{lines}\n}}\n"));
    }
    for vip in vips {
        writer.vip(vip);
    }
    let Writer { text, left, .. } = writer;
    Exported { text, left }
}

#[derive(Debug, Default)]
struct Writer {
    text: String,
    left: Vec<Unsaid>,
}

impl Writer {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes it");
    }

    fn leave(&mut self, key: String, why: &'static str) {
        self.left.push(Unsaid { key, why });
    }

    fn vip(&mut self, vip: &VipSpec) {
        let within = format!("vip.{}", vip.name);
        if vip.interface.contains(['"', '\\']) {
            let why = "the name of its interface cannot be written there; nothing of it is";
            self.leave(within, why);
            return;
        }
        let (scripts, processes) = self.tracks(vip, &within);
        self.line(format_args!("vrrp_instance {} {{", vip.name));
        self.election(vip, &within);
        let block = |writer: &mut Self, key: &str, lines: &[String]| {
            if !lines.is_empty() {
                writer.line(format_args!("    {key} {{"));
                for line in lines {
                    writer.line(format_args!("        {line}"));
                }
                writer.line(format_args!("    }}"));
            }
        };
        let peers: Vec<String> = vip.peers.iter().map(ToString::to_string).collect();
        block(self, "unicast_peer", &peers);
        let addresses = vip.addresses.iter();
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        block(self, "virtual_ipaddress", &addresses);
        block(self, "track_script", &scripts);
        block(self, "track_process", &processes);
        if !vip.notify.is_empty() {
            match command::write(&vip.notify) {
                Some(notify) => self.line(format_args!("    notify {notify}")),
                None => self.leave(format!("{within}.notify"), UNSAYABLE),
            }
        }
        self.line(format_args!("}}\n"));
        if vip.on_dead == OnDead::RestartThenYield {
            let why = "keepalived restarts nothing, and yields at once";
            self.leave(format!("{within}.on_dead"), why);
        }
    }

    fn election(&mut self, vip: &VipSpec, within: &str) {
        let version = match vip.version {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        };
        self.line(format_args!("    state BACKUP"));
        self.line(format_args!("    interface \"{}\"", vip.interface));
        self.line(format_args!("    virtual_router_id {}", vip.vrid));
        self.line(format_args!("    version {version}"));
        self.line(format_args!("    priority {}", vip.priority));
        self.line(format_args!("    advert_int {}", Seconds(vip.advert)));
        match vip.hardware {
            Hardware::Own => {}
            Hardware::Virtual => self.line(format_args!("    use_vmac")),
        }
        match vip.preempt {
            Preempt::Never => self.line(format_args!("    nopreempt")),
            Preempt::Always => {}
            Preempt::After(delay) => {
                if delay > PREEMPT_DELAY_MAX {
                    let why = "keepalived waits for 1000 seconds at most, which it is then";
                    self.leave(format!("{within}.preempt"), why);
                }
                let delay = Seconds(delay.min(PREEMPT_DELAY_MAX));
                self.line(format_args!("    preempt_delay {delay}"));
            }
        }
    }

    /// Defines what is tracked; the names of scripts and of processes.
    fn tracks(&mut self, vip: &VipSpec, within: &str) -> (Vec<String>, Vec<String>) {
        let (mut scripts, mut processes) = (Vec::new(), Vec::new());
        for (at, track) in vip.track.iter().enumerate() {
            let (name, key) = (
                format!("{}-{}", vip.name, at + 1),
                format!("{within}.track[{at}]"),
            );
            if !track.restart.is_empty() {
                let why = "keepalived restarts nothing";
                self.leave(format!("{key}.restart"), why);
            }
            match &track.what {
                Tracked::Gateway => {
                    let why = "keepalived does not see the gateway of Mainstay; track its port by a script";
                    self.leave(key, why);
                }
                Tracked::Process(process) => match command::write(std::slice::from_ref(process)) {
                    Some(process) if !process.contains('\'') => {
                        self.line(format_args!(
                            "vrrp_track_process {name} {{\n    process {process}\n}}\n"
                        ));
                        processes.push(name);
                    }
                    Some(_) | None => self.leave(key, UNSAYABLE),
                },
                Tracked::Tcp(address) => {
                    scripts.extend(self.script(name, &key, &tracks::of_port(address), track));
                }
                Tracked::Exec(command) => scripts.extend(self.script(name, &key, command, track)),
            }
        }
        (scripts, processes)
    }

    fn script(
        &mut self,
        name: String,
        key: &str,
        words: &[String],
        track: &TrackSpec,
    ) -> Option<String> {
        let Some(command) = command::write(words) else {
            self.leave(key.to_owned(), UNSAYABLE);
            return None;
        };
        let mut whole = |time: Duration, of: &str| {
            if time.subsec_nanos() != 0 || time.is_zero() {
                let why = "keepalived counts whole seconds; it is rounded up";
                self.leave(format!("{key}.{of}"), why);
            }
            time.as_secs() + u64::from(time.subsec_nanos() != 0 || time.is_zero())
        };
        let (every, timeout) = (whole(track.every, "every"), whole(track.timeout, "timeout"));
        let (fall, rise) = (track.fall, track.rise);
        self.line(format_args!(
            "vrrp_script {name} {{\n    script {command}\n    interval {every}\n    timeout {timeout}\n    fall {fall}\n    rise {rise}\n}}\n"
        ));
        Some(name)
    }
}

const UNSAYABLE: &str =
    "keepalived cannot be told it: quotes, backslashes, or too long; put it into a script";

/// A time in seconds, with what is behind the point.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, millis) = (self.0.as_secs(), self.0.subsec_millis());
        if millis == 0 {
            return write!(f, "{whole}");
        }
        let part = format!("{millis:03}");
        write!(f, "{whole}.{}", part.trim_end_matches('0'))
    }
}
