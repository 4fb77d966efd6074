//! A link of its own: a switch in a network namespace, and hosts that are plugged into it, whose cables can be pulled.

use std::process::Command;

use crate::{Netns, program};

/// A switch that floods multicast, as a plain one does. Needs root.
///
/// Declare it after the hosts: it is deleted first then, while they still hold the other ends of its cables.
#[derive(Debug)]
pub struct Segment {
    switch: Netns,
}

impl Segment {
    /// Makes one without cables.
    #[expect(clippy::new_without_default, reason = "making one changes the machine")]
    pub fn new() -> Self {
        let switch = Netns::new();
        let segment = Self { switch };
        segment.ip(&[
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ]);
        segment.ip(&["link", "set", "br0", "up"]);
        segment
    }

    /// Plugs a host in: its `eth0` has this address, such as `10.9.0.1/24`, and the other end is called `port`.
    pub fn plug(&self, host: &Netns, port: &str, address: &str) {
        let of_host = host.path();
        let of_host = of_host.to_str().expect("its name is plain");
        self.ip(&[
            "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", of_host,
        ]);
        self.heal(port);
        self.ip(&["link", "set", "dev", port, "up"]);
        let in_host = |arguments: &[&str]| run(host.command(&program("ip")).args(arguments));
        in_host(&["address", "add", address, "dev", "eth0"]);
        in_host(&["link", "set", "eth0", "up"]);
    }

    /// Pulls the cable at the switch: the host sees nothing of it, as if something between had failed.
    pub fn cut(&self, port: &str) {
        self.ip(&["link", "set", "dev", port, "nomaster"]);
    }

    /// Plugs it in again.
    pub fn heal(&self, port: &str) {
        self.ip(&["link", "set", "dev", port, "master", "br0"]);
    }

    /// Takes the carrier away, which the host sees, or gives it back.
    pub fn carrier(&self, port: &str, state: Carrier) {
        let word = match state {
            Carrier::On => "up",
            Carrier::Off => "down",
        };
        self.ip(&["link", "set", "dev", port, word]);
    }

    fn ip(&self, arguments: &[&str]) {
        run(self.switch.command(&program("ip")).args(arguments));
    }
}

/// Whether a cable carries a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// It does.
    On,
    /// It does not.
    Off,
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("`ip` can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
}
