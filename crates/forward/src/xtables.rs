//! What other programs, such as Docker, have in iptables, and the removal of chains of ours there.
//!
//! Read through the programs of iptables: its rules are blobs of the extensions that wrote them, in
//! nf_tables, too.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mainstay_kernel::netlink::Prefix;

/// Chains that begin so are ours.
pub const CHAIN_PREFIX: &str = "MAINSTAY-";
/// 100,000 rules. What is longer is not read to its end.
const SAVED_LEN_MAX: u64 = 32 * 1024 * 1024;
/// How long a change waits for another one, in seconds.
const LOCK_WAIT: &str = "5";
/// Where the programs of an administrator are, whatever the caller's search path is.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// One of the iptables that a host may have at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The program, as `iptables-nft`.
    pub name: String,
    /// Whether it is about IPv6.
    pub ipv6: bool,
    /// In which directory.
    place: PathBuf,
}

/// A table as `iptables-save` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// By which program.
    pub variant: Variant,
    /// What it wrote.
    pub text: String,
}

/// All iptables of this host whose tables exist in this thread's network namespace.
pub fn variants() -> Vec<Variant> {
    let mut found = Vec::new();
    for (family, ipv6, names) in [
        ("iptables", false, "ip_tables_names"),
        ("ip6tables", true, "ip6_tables_names"),
    ] {
        let at = |name: &str| {
            let place = PLACES.iter().map(Path::new);
            let place = place.filter(|place| place.join(format!("{name}-save")).exists());
            place.map(Path::to_path_buf).next()
        };
        let variant = |name: String| {
            let place = at(&name)?;
            Some(Variant { name, ipv6, place })
        };
        // The tables of the old one are there once somebody used it; to ask it would make them.
        let names = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(names));
        let has_legacy = names.is_ok_and(|names| !names.trim().is_empty());
        let legacy = variant(format!("{family}-legacy"));
        let modern = variant(format!("{family}-nft"));
        if legacy.is_none() && modern.is_none() {
            found.extend(variant(family.to_owned()));
        }
        found.extend(modern);
        found.extend(legacy.filter(|_| has_legacy));
    }
    found
}

impl Variant {
    /// The rules of a table, or of all. Starts a process, and blocks until it ends.
    pub fn save(&self, table: Option<&str>) -> io::Result<Saved> {
        let mut command = Command::new(self.place.join(format!("{}-save", self.name)));
        if let Some(table) = table {
            command.args(["-t", table]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut text = Vec::new();
        let out = child.stdout.take();
        let read = out.map_or(Ok(0), |out| out.take(SAVED_LEN_MAX).read_to_end(&mut text));
        // If there was more, it ends by its broken pipe.
        let ended = child.wait()?;
        read?;
        if !ended.success() {
            return Err(io::Error::other(format!("{}-save: {ended}", self.name)));
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let variant = self.clone();
        Ok(Saved { variant, text })
    }

    /// Carries out what a text of `iptables-restore` says, beside what is there.
    fn restore(&self, text: &str) -> io::Result<()> {
        let mut child = Command::new(self.place.join(format!("{}-restore", self.name)))
            .args(["--noflush", "-w", LOCK_WAIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut into) = child.stdin.take() {
            into.write_all(text.as_bytes())?;
        }
        let ended = child.wait_with_output()?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.lines().next().unwrap_or("no word");
        Err(io::Error::other(format!("{}-restore: {said}", self.name)))
    }
}

/// Chains of ours that an earlier process left, each with the program that shows it.
pub fn left() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for variant in variants() {
        let (chains, _) = removal(&variant.save(None)?.text);
        found.extend(chains.iter().map(|chain| named(chain, &variant)));
    }
    Ok(found)
}

fn named(chain: &str, of: &Variant) -> String {
    format!("{chain} of {}", of.name)
}

/// Takes away all chains of ours, and the rules of other chains that lead there. Which chains, of
/// which program.
pub fn clear() -> io::Result<Vec<String>> {
    let mut cleared = Vec::new();
    for variant in variants() {
        let saved = variant.save(None)?;
        let (chains, text) = removal(&saved.text);
        if chains.is_empty() {
            continue;
        }
        variant.restore(&text)?;
        cleared.extend(chains.iter().map(|chain| named(chain, &variant)));
    }
    Ok(cleared)
}

/// Our chains in what was saved, and what `iptables-restore` has to be told to remove them.
pub fn removal(saved: &str) -> (Vec<String>, String) {
    let (mut all, mut lines) = (Vec::new(), Vec::new());
    for table in tables(saved) {
        let is_ours = |chain: &str| chain.starts_with(CHAIN_PREFIX);
        let chains: Vec<&str> = table.chains().map(|(chain, _)| chain).collect();
        let ours: Vec<&str> = chains.into_iter().filter(|chain| is_ours(chain)).collect();
        if ours.is_empty() {
            continue;
        }
        lines.push(format!("*{}", table.name));
        for rule in table.rules() {
            if !is_ours(rule.chain) && rule.target().is_some_and(is_ours) {
                lines.push(format!("-D {} {}", rule.chain, rule.rest));
            }
        }
        lines.extend(ours.iter().map(|chain| format!("-F {chain}")));
        lines.extend(ours.iter().map(|chain| format!("-X {chain}")));
        lines.push("COMMIT".to_owned());
        all.extend(ours.into_iter().map(str::to_owned));
    }
    let text = lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect();
    (all, text)
}

/// A table of a saved text.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    name: &'a str,
    body: &'a str,
}

/// A rule of a saved text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule<'a> {
    /// Of which chain.
    pub chain: &'a str,
    /// What stands behind it.
    pub rest: &'a str,
}

/// The tables of a saved text.
pub fn tables(saved: &str) -> impl Iterator<Item = Table<'_>> {
    let parts = saved.split("\n*").map(|part| part.trim_start_matches('*'));
    parts.filter_map(|part| {
        let (name, body) = part.split_once('\n')?;
        // What stands in front of the first table is a remark.
        (!name.starts_with('#')).then_some(Table { name, body })
    })
}

impl<'a> Table<'a> {
    /// Its chains; those that packets meet by themselves have a policy.
    pub fn chains(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let lines = self.body.lines().filter_map(|line| line.strip_prefix(':'));
        lines.filter_map(|line| {
            let mut words = line.split(' ');
            let policy = |word: &'a str| (word != "-").then_some(word);
            Some((words.next()?, words.next().and_then(policy)))
        })
    }

    /// Its rules, in their order within each chain.
    pub fn rules(self) -> impl Iterator<Item = Rule<'a>> {
        let lines = self
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("-A "));
        lines.map(|line| {
            let (chain, rest) = line.split_once(' ').unwrap_or((line, ""));
            Rule { chain, rest }
        })
    }
}

impl<'a> Rule<'a> {
    /// The word behind an option, and whether a `!` stands in front of it.
    fn option(self, name: &str) -> Option<(bool, &'a str)> {
        let mut negated = false;
        let mut words = self.rest.split(' ');
        while let Some(word) = words.next() {
            if word == name {
                return Some((negated, words.next()?));
            }
            negated = word == "!";
        }
        None
    }

    fn value(self, name: &str) -> Option<&'a str> {
        self.option(name).map(|(_, value)| value)
    }

    /// Where it leads.
    pub fn target(self) -> Option<&'a str> {
        self.value("-j").or_else(|| self.value("-g"))
    }

    /// Whether it lets the connections of a range of service addresses pass, of whichever state.
    fn lets_pass(self, range: Prefix) -> bool {
        let is_wide = |text: &str| {
            let found = range_of(text);
            found.is_some_and(|found| found.len() <= range.len() && found.overlaps(range))
        };
        let only = ["-m", "conntrack", "--ctorigdst", "-j", "ACCEPT"];
        let words = self.rest.split(' ');
        self.target() == Some("ACCEPT")
            && matches!(self.option("--ctorigdst"), Some((false, range)) if is_wide(range))
            && words.filter(|word| !only.contains(word)).count() == 1
    }
}

/// A range, or an address alone.
pub(crate) fn range_of(text: &str) -> Option<Prefix> {
    match text.split_once('/') {
        Some((address, len)) => Prefix::new(address.parse().ok()?, len.parse().ok()?).ok(),
        None => text.parse().ok().map(Prefix::of),
    }
}

/// What a chain at the place where packets are forwarded does with what no rule accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// It drops them.
    pub drops: bool,
    /// A rule accepts the connections of each of the ranges that were asked for.
    pub passes_ours: bool,
    /// Whether the chain is there in which Docker wants rules of others.
    pub has_docker_chain: bool,
}

/// Reads the table `filter`; `None` if it has no chain `FORWARD`.
pub fn forwarding(saved: &str, ranges: &[Prefix]) -> Option<Forwarding> {
    let table = tables(saved).find(|table| table.name == "filter")?;
    let (_, policy) = table.chains().find(|(chain, _)| *chain == "FORWARD")?;
    let asked_first = ["FORWARD", "DOCKER-USER"];
    let passes = |range: &Prefix| {
        let mut rules = table.rules();
        rules.any(|rule| asked_first.contains(&rule.chain) && rule.lets_pass(*range))
    };
    Some(Forwarding {
        drops: policy == Some("DROP"),
        passes_ours: ranges.iter().all(passes),
        has_docker_chain: table.chains().any(|(chain, _)| chain == "DOCKER-USER"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker 24 leaves it, with one published port.
    const DOCKER: &str =
        "# Generated by iptables-save v1.8.9 (nf_tables) on Fri Nov 27 22:00:00 2026
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [3:180]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
# Completed on Fri Nov 27 22:00:00 2026
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
";

    fn prefix(text: &str) -> Prefix {
        range_of(text).unwrap()
    }

    #[test]
    fn dockers_policy_is_recognised_and_the_rule_against_it() {
        let range = [prefix("10.96.0.0/16")];
        let docker = forwarding(DOCKER, &range).unwrap();
        assert!(docker.drops && docker.has_docker_chain && !docker.passes_ours);
        let with = |rule: &str| {
            let text = DOCKER.replace("-A DOCKER-USER -j RETURN", rule);
            forwarding(&text, &range).unwrap().passes_ours
        };
        for (rule, passes) in [
            ("-m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT", true),
            ("-m conntrack --ctorigdst 10.0.0.0/8 -j ACCEPT", true),
            ("-m conntrack --ctorigdst 10.96.1.0/24 -j ACCEPT", false),
            ("-m conntrack ! --ctorigdst 10.96.0.0/16 -j ACCEPT", false),
            ("-m conntrack --ctorigdst 10.96.0.0/16 -j DROP", false),
            (
                "-i eth0 -m conntrack --ctorigdst 10.96.0.0/16 -j ACCEPT",
                false,
            ),
        ] {
            assert_eq!(with(&format!("-A DOCKER-USER {rule}")), passes, "{rule}");
        }
        assert_eq!(forwarding("", &range), None);
    }

    #[test]
    fn our_chains_are_removed_with_what_leads_there_and_nothing_else() {
        assert_eq!(removal(DOCKER), (Vec::new(), String::new()));
        let saved = DOCKER.replace(
            ":OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING",
            ":OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n:MAINSTAY-A - [0:0]\n:MAINSTAY-B - [0:0]\n\
             -A PREROUTING -d 10.96.0.0/16 -j MAINSTAY-A\n-A MAINSTAY-A -j MAINSTAY-B\n-A PREROUTING",
        );
        let (chains, text) = removal(&saved);
        assert_eq!(chains, ["MAINSTAY-A", "MAINSTAY-B"]);
        assert_eq!(
            text,
            "*nat\n-D PREROUTING -d 10.96.0.0/16 -j MAINSTAY-A\n-F MAINSTAY-A\n-F MAINSTAY-B\n\
             -X MAINSTAY-A\n-X MAINSTAY-B\nCOMMIT\n"
        );
    }
}
