//! The rivals: what others do about the same services, by the programs that they use for it.

use super::field::{Service, fed};
use crate::tree;
use anyhow::{Context as _, Result};
use mainstay_testkit::program;
use std::{fs, net::SocketAddr, process::Command};

/// Rules of iptables, one after the other, or a chain for each service.
const FLAT: &str = "bench/forward-iptables-flat.rules";
const CHAINS: &str = "bench/forward-iptables-chains.rules";
/// Chains of nftables.
const NFT_CHAINS: &str = "bench/forward-nft-chains.nft";

pub(super) const FILES: [&str; 3] = [FLAT, CHAINS, NFT_CHAINS];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rival {
    LegacyFlat,
    NftFlat,
    LegacyChains,
    NftChains,
    Chains,
}

impl Rival {
    pub(super) const ALL: [Self; 5] = [
        Self::LegacyFlat,
        Self::NftFlat,
        Self::LegacyChains,
        Self::NftChains,
        Self::Chains,
    ];

    /// As a part of keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LegacyFlat => "iptables_legacy",
            Self::NftFlat => "iptables_nft",
            Self::LegacyChains => "iptables_legacy_chains",
            Self::NftChains => "iptables_nft_chains",
            Self::Chains => "nft_chains",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::LegacyFlat | Self::NftFlat => FLAT,
            Self::LegacyChains | Self::NftChains => CHAINS,
            Self::Chains => NFT_CHAINS,
        }
    }

    /// The rules of these services.
    pub(super) fn rules(self, services: &[Service]) -> Result<String> {
        let path = tree::root().join(self.file());
        let template =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(filled(&template, services))
    }

    /// Puts rules in the place of all that there are, in this thread's network namespace.
    pub(super) fn load(self, rules: &str) -> Result<()> {
        match self {
            Self::LegacyFlat | Self::LegacyChains => fed(
                &mut Command::new(program("iptables-legacy-restore")),
                &["-w"],
                rules,
            ),
            Self::NftFlat | Self::NftChains => fed(
                &mut Command::new(program("iptables-nft-restore")),
                &[],
                rules,
            ),
            Self::Chains => fed(&mut Command::new(program("nft")), &["-f", "-"], rules),
        }
    }

    /// Takes away all that was loaded.
    pub(super) fn clear(self) -> Result<()> {
        match self {
            Self::Chains => self.load("add table ip rival\ndelete table ip rival\n"),
            Self::LegacyFlat | Self::NftFlat | Self::LegacyChains | Self::NftChains => {
                self.load("*nat\nCOMMIT\n")
            }
        }
    }

    /// Gives the first instance of one service, the last of so many, its place in the quickest way that
    /// there is: one rule is replaced, or the chain of that service is written anew.
    pub(super) fn change_one(self, service: &Service, count: usize) -> Result<()> {
        let to = service.instances[0].to_string();
        let replace = |command: &mut Command, chain: &str, at: usize| {
            let (ip, port) = (service.address.ip(), service.address.port());
            let flat = format!("-d {ip}/32 --dport {port}");
            let matches = if chain == "SERVICES" {
                flat.as_str()
            } else {
                ""
            };
            let rule = format!(
                "-t nat -R {chain} {at} -p tcp {matches} -m statistic --mode random --probability 0.33333333349 \
                 -j DNAT --to-destination {to}"
            );
            crate::cargo::run(command.args(rule.split_whitespace()))
        };
        let own = format!("SVC-{count}");
        let first = count * service.instances.len() - 2;
        match self {
            Self::LegacyFlat => {
                let mut command = Command::new(program("iptables-legacy"));
                replace(command.arg("-w"), "SERVICES", first)
            }
            Self::LegacyChains => {
                let mut command = Command::new(program("iptables-legacy"));
                replace(command.arg("-w"), &own, 1)
            }
            Self::NftFlat => replace(
                &mut Command::new(program("iptables-nft")),
                "SERVICES",
                first,
            ),
            Self::NftChains => replace(&mut Command::new(program("iptables-nft")), &own, 1),
            Self::Chains => {
                let rules = self.rules(std::slice::from_ref(service))?;
                let chain = "add rule ip rival svc-";
                let rule = rules.lines().find(|line| line.starts_with(chain));
                let rule = rule.context("the chain of a service has a rule")?;
                // Filled in for one service it is called the first.
                let rule = rule.replacen("svc-1 ", &format!("svc-{count} "), 1);
                self.load(&format!("flush chain ip rival svc-{count}\n{rule}\n"))
            }
        }
    }
}

/// Repeats each group of lines with `<...>` for every service.
fn filled(template: &str, services: &[Service]) -> String {
    let lines: Vec<&str> = template
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let is_repeated = |line: &&str| line.contains('<');
    let mut rules = String::new();
    for group in lines.chunk_by(|one, next| is_repeated(one) == is_repeated(next)) {
        if !is_repeated(&group[0]) {
            for line in group {
                push(&mut rules, line);
            }
            continue;
        }
        for (index, service) in services.iter().enumerate() {
            for line in group {
                push(&mut rules, &fill(line, index + 1, service));
            }
        }
    }
    rules
}

fn push(rules: &mut String, line: &str) {
    rules.push_str(line);
    rules.push('\n');
}

fn fill(line: &str, number: usize, service: &Service) -> String {
    let dotted = |to: &SocketAddr| format!("{} . {}", to.ip(), to.port());
    let mut line = line
        .replace("<number>", &number.to_string())
        .replace("<address>", &service.address.ip().to_string())
        .replace("<port>", &service.address.port().to_string());
    for (name, to) in ["a", "b", "c"].into_iter().zip(&service.instances) {
        line = line.replace(&format!("<{name}>"), &to.to_string());
        line = line.replace(&format!("<{name}.>"), &dotted(to));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_lines_are_repeated_for_each_service() {
        let template = "# why\nbegin\n:<number>\nmiddle\n<address> <port>\n<a> <b.>\nend\n";
        let services = [1, 2].map(Service::numbered);
        let lines = [
            "begin",
            ":1",
            ":2",
            "middle",
            "10.96.0.1 8080",
            "10.77.0.1:8000 10.77.0.1 . 8001",
            "10.96.0.2 8080",
            "10.77.0.2:8000 10.77.0.2 . 8001",
            "end",
        ];
        assert_eq!(
            filled(template, &services).lines().collect::<Vec<_>>(),
            lines
        );
    }
}
