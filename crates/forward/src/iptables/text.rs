//! Rules as text, in one form whatever program printed them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use super::rules::PREFIX;

/// By how much the kernel counts probabilities.
const PROBABILITY_UNIT: f64 = 2_147_483_648.0;

/// What stands of ours in one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) chains: BTreeMap<String, Vec<Line>>,
    /// Rules of other chains that lead into ours: the chain, and the rule.
    pub(super) hooks: Vec<(String, String)>,
}

/// A rule without its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) packets: u64,
}

impl Saved {
    /// What `iptables-save -c` printed of one table.
    pub(super) fn read(printed: &str) -> Self {
        let mut saved = Self::default();
        for line in printed.lines().filter(|line| line.contains(PREFIX)) {
            if let Some(rest) = line.strip_prefix(':') {
                if let Some(name) = rest.split(' ').next().filter(|name| is_ours(name)) {
                    saved.chains.entry(name.to_owned()).or_default();
                }
            } else if let Some((packets, chain, rule)) = read_rule(line) {
                if is_ours(chain) {
                    let text = canonical(rule);
                    let lines = saved.chains.entry(chain.to_owned()).or_default();
                    lines.push(Line { text, packets });
                } else if leads_to(rule).is_some_and(is_ours) {
                    saved.hooks.push((chain.to_owned(), canonical(rule)));
                }
            }
        }
        saved
    }

    /// The chains of ours that others' rules lead to.
    pub(super) fn led_to(&self) -> BTreeSet<&str> {
        let hooks = self.hooks.iter();
        hooks.filter_map(|(_, rule)| leads_to(rule)).collect()
    }
}

/// Of the lines that concern us, without what is counted.
pub(super) fn digest(printed: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for line in printed.lines().filter(|line| line.contains(PREFIX)) {
        let rule = line.split_once("] ").map_or(line, |(_, rule)| rule);
        // What passed a chain is counted behind its name.
        let rule = rule.split_once(" [").map_or(rule, |(name, _)| name);
        rule.hash(&mut hasher);
    }
    hasher.finish()
}

fn is_ours(chain: &str) -> bool {
    chain.starts_with(PREFIX)
}

/// Such as `[12:345] -A MAINSTAY-TCP -d 10.96.0.1/32 -j MAINSTAY-7-TCP`.
fn read_rule(line: &str) -> Option<(u64, &str, &str)> {
    let (counted, rest) = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?,
        None => ("0:0", line),
    };
    let packets = counted.split_once(':')?.0.parse().ok()?;
    let (chain, rule) = rest.strip_prefix("-A ")?.split_once(' ')?;
    Some((packets, chain, rule))
}

fn leads_to(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ');
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}

/// A match or the target, with its options.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    name: String,
    options: Vec<String>,
}

impl Part {
    fn write(mut self, flag: &str, into: &mut String) {
        self.options.sort();
        write!(into, "{flag} {} ", self.name).ok();
        for option in self.options {
            into.push_str(&option);
            into.push(' ');
        }
    }
}

/// The same rule in one form: programs differ in the order of options, in how they write numbers,
/// and in whether they name the size of a network of one address.
pub(super) fn canonical(rule: &str) -> String {
    let mut general: Vec<String> = Vec::new();
    let mut matches: Vec<Part> = Vec::new();
    let mut target: Option<(String, Part)> = None;
    let mut words = rule.split(' ').filter(|word| !word.is_empty()).peekable();
    let mut not = "";
    while let Some(word) = words.next() {
        let named = |value: Option<&str>| Part {
            name: value.unwrap_or_default().to_owned(),
            options: Vec::new(),
        };
        match word {
            "!" => {
                not = "! ";
                continue;
            }
            "-m" => matches.push(named(words.next())),
            "-j" | "-g" => target = Some((word.to_owned(), named(words.next()))),
            option => {
                let mut text = format!("{not}{option}");
                while let Some(value) = words.next_if(|next| !next.starts_with(['-', '!'])) {
                    write!(text, " {}", canonical_value(option, value)).ok();
                }
                let part = match &mut target {
                    Some((_, target)) => Some(target),
                    None => matches.last_mut(),
                };
                match part {
                    Some(part) if option.starts_with("--") => part.options.push(text),
                    Some(_) | None => general.push(text),
                }
            }
        }
        not = "";
    }
    general.sort();
    matches.sort();
    let mut text = String::new();
    for option in general {
        text.push_str(&option);
        text.push(' ');
    }
    for part in matches {
        part.write("-m", &mut text);
    }
    if let Some((flag, target)) = target {
        target.write(&flag, &mut text);
    }
    text.truncate(text.trim_end().len());
    text
}

fn canonical_value(option: &str, value: &str) -> String {
    match option {
        "-s" | "-d" | "--ctorigdst" => match value.split_once('/') {
            Some((address, "32")) if !address.contains(':') => address.to_owned(),
            Some((address, "128")) => address.to_owned(),
            Some(_) | None => value.to_owned(),
        },
        "--probability" => value.parse().map_or_else(|_| value.to_owned(), probability),
        _ => match value
            .strip_prefix("0x")
            .map(|hex| u64::from_str_radix(hex, 16))
        {
            Some(Ok(number)) => number.to_string(),
            Some(Err(_)) | None => value.to_owned(),
        },
    }
}

/// As the kernel has it, in as many digits as iptables writes.
pub(super) fn probability(of: f64) -> String {
    format!("{:.11}", (of * PROBABILITY_UNIT).round() / PROBABILITY_UNIT)
}

/// The word behind an option.
pub(super) fn value_of<'a>(rule: &'a str, option: &str) -> Option<&'a str> {
    let mut words = rule.split(' ');
    words.find(|word| *word == option)?;
    words.next()
}

/// The address behind an option, if it is a single one.
pub(super) fn address_of(rule: &str, option: &str) -> Option<IpAddr> {
    value_of(rule, option)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_in_different_words_is_the_same() {
        for (one, other) in [
            (
                "-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j MAINSTAY-1-TCP",
                "-p tcp -d 10.96.0.1 -m tcp --dport 80 -j MAINSTAY-1-TCP",
            ),
            (
                "-p tcp -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.0.0.1:80",
                "-p tcp -m statistic --probability 0.3333333333333333 --mode random -j DNAT --to-destination 10.0.0.1:80",
            ),
            (
                "-m cluster --cluster-hash-seed 0x5eed0001 --cluster-total-nodes 32 -j RETURN",
                "-m cluster --cluster-total-nodes 32 --cluster-hash-seed 1592590337 -j RETURN",
            ),
        ] {
            assert_eq!(canonical(one), canonical(other));
            assert_eq!(canonical(&canonical(one)), canonical(one));
        }
        let not = "-m conntrack ! --ctstate DNAT ! -o lo -j RETURN";
        assert_eq!(
            canonical(not),
            "! -o lo -m conntrack ! --ctstate DNAT -j RETURN"
        );
        assert_ne!(canonical(not), canonical(&not.replace("! --", "--")));
        let dports = |port: u16| format!("-p tcp -m tcp --dport {port} -j RETURN");
        assert_ne!(canonical(&dports(80)), canonical(&dports(81)));
    }

    #[test]
    fn what_is_ours_is_told_from_what_is_not() {
        let printed = "# Generated\n*nat\n:PREROUTING ACCEPT [3:4]\n:DOCKER - [0:0]\n:MAINSTAY-TCP - [0:0]\n\
            [1:2] -A PREROUTING -j MAINSTAY-SERVICES\n[1:2] -A PREROUTING -j DOCKER\n\
            [5:6] -A MAINSTAY-TCP -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j MAINSTAY-1-TCP\nCOMMIT\n";
        let saved = Saved::read(printed);
        let hook = ("PREROUTING".to_owned(), "-j MAINSTAY-SERVICES".to_owned());
        assert_eq!(saved.hooks, [hook]);
        assert_eq!(saved.chains["MAINSTAY-TCP"][0].packets, 5);
        assert_eq!(saved.chains.len(), 1);
        // What is counted and what others do makes no difference.
        let busy = printed
            .replace("[5:6]", "[7:8]")
            .replace("DOCKER", "THEIRS");
        assert_eq!(digest(&busy), digest(printed));
        assert_ne!(
            digest(&printed.replace("10.96.0.1", "10.96.0.2")),
            digest(printed)
        );
    }

    #[test]
    fn no_text_that_a_program_prints_is_too_strange() {
        for line in [
            "",
            "[",
            "[1",
            "[1:2]",
            ":MAINSTAY-",
            "-A MAINSTAY-X",
            "[x:y] -A MAINSTAY-X -j",
            "-A MAINSTAY-X ! ! -m -j",
        ] {
            let _ = Saved::read(line);
        }
    }
}
