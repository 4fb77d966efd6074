//! Tables of a node file, written: what is read from them is what they were written from.

use std::fmt::Write as _;
use std::time::Duration;

use mainstay_ids::duration::display;
use mainstay_model::VipSpec;
use mainstay_model::vip::{
    self as model, Hardware, OnDead, Preempt, TrackSpec, Tracked, VrrpVersion,
};
use toml::Value;

use crate::file::limits::TEXT_LEN_MAX;

/// The tables `[vip.NAME]`. Keys that have their defaults are left out, but for what is tracked, whose default depends
/// on the node's roles.
pub fn vip_tables(vips: &[VipSpec]) -> String {
    let tables: Vec<String> = vips.iter().map(table).collect();
    tables.join("\n")
}

fn table(vip: &VipSpec) -> String {
    let mut text = format!("[vip.{}]\n", vip.name);
    let mut key = |name: &str, value: String| {
        writeln!(text, "{name:<9} = {value}").expect("a string takes it");
    };
    key(
        "address",
        several(vip.addresses.iter().map(ToString::to_string).collect()),
    );
    key("interface", quoted(&vip.interface));
    key("vrid", vip.vrid.to_string());
    match vip.version {
        VrrpVersion::V3 => {}
        VrrpVersion::V2 => key("version", "2".to_owned()),
    }
    if vip.priority.get() != model::PRIORITY {
        key("priority", vip.priority.to_string());
    }
    match vip.preempt {
        Preempt::Never => {}
        Preempt::Always => key("preempt", "true".to_owned()),
        Preempt::After(delay) => key("preempt", duration(delay)),
    }
    if vip.advert != model::ADVERT {
        key("advert", duration(vip.advert));
    }
    if !vip.peers.is_empty() {
        key("peers", list(vip.peers.iter().map(ToString::to_string)));
    }
    match vip.hardware {
        Hardware::Own => {}
        Hardware::Virtual => key("virtual_mac", "true".to_owned()),
    }
    let tracks: Vec<String> = vip.track.iter().map(track).collect();
    key("track", format!("[{}]", tracks.join(", ")));
    match vip.on_dead {
        OnDead::YieldAtOnce => {}
        OnDead::RestartThenYield => key("on_dead", quoted("restart-then-yield")),
    }
    if !vip.notify.is_empty() {
        key("notify", list(vip.notify.iter().cloned()));
    }
    text
}

fn track(track: &TrackSpec) -> String {
    if *track == TrackSpec::of(Tracked::Gateway) {
        return quoted("gateway");
    }
    let mut keys = vec![match &track.what {
        // A table cannot say it; how it is looked at does not matter for it.
        Tracked::Gateway => return quoted("gateway"),
        Tracked::Process(name) => format!("process = {}", quoted(name)),
        Tracked::Tcp(address) => format!("tcp = {}", quoted(&address.to_string())),
        Tracked::Exec(command) => format!("exec = {}", list(command.iter().cloned())),
    }];
    if track.every != model::TRACK_EVERY {
        keys.push(format!("every = {}", duration(track.every)));
    }
    if track.timeout != model::TRACK_TIMEOUT {
        keys.push(format!("timeout = {}", duration(track.timeout)));
    }
    if track.fall != model::TRACK_FALL {
        keys.push(format!("fall = {}", track.fall));
    }
    if track.rise != model::TRACK_RISE {
        keys.push(format!("rise = {}", track.rise));
    }
    if !track.restart.is_empty() {
        keys.push(format!("restart = {}", list(track.restart.iter().cloned())));
    }
    format!("{{ {} }}", keys.join(", "))
}

fn several(mut texts: Vec<String>) -> String {
    match texts.as_mut_slice() {
        [one] => quoted(one),
        _ => list(texts.into_iter()),
    }
}

fn list(texts: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = texts.map(|text| self::quoted(&text)).collect();
    format!("[{}]", quoted.join(", "))
}

fn duration(duration: Duration) -> String {
    quoted(&display(duration))
}

/// Whether a text can stand in a node file: a variable that is not closed cannot be told from a mistake.
pub(crate) fn can_say(text: &str) -> bool {
    escaped(text).is_some_and(|text| text.len() <= TEXT_LEN_MAX)
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    Value::String(escaped(text).unwrap_or_else(|| text.to_owned())).to_string()
}

/// Each `${NAME}` as `$${NAME}`, which stands for itself.
fn escaped(text: &str) -> Option<String> {
    let mut written = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let len = at + rest[at..].find('}')? + 1;
        written.push_str(&rest[..at]);
        written.push('$');
        written.push_str(&rest[at..len]);
        rest = &rest[len..];
    }
    written.push_str(rest);
    Some(written)
}
