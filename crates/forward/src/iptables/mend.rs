//! From what stands to what is to stand: input for `iptables-restore --noflush`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::rules::{Order, Table};
use super::text::{Line, Saved};

/// What makes one table what it is to be, and what was wrong, in words. `None`: nothing is.
///
/// Only chains of ours and rules that lead into them are named, so that nothing of anybody else's can
/// be changed by it.
pub(super) fn mend(name: &str, saved: &Saved, wanted: &Table) -> Option<(String, Vec<String>)> {
    let mut edit = Edit::default();
    for (chain, (order, rules)) in &wanted.chains {
        edit.chain(chain, saved.chains.get(chain), *order, rules);
    }
    edit.hooks(saved, wanted);
    edit.surplus(saved, wanted);
    if edit.wrong.is_empty() {
        return None;
    }
    let text = format!(
        "*{name}\n{}{}{}COMMIT\n",
        edit.chains, edit.rules, edit.deleted
    );
    Some((text, edit.wrong))
}

/// A table without anything of ours.
pub(super) fn erase(name: &str, saved: &Saved) -> Option<String> {
    Some(mend(name, saved, &Table::default())?.0)
}

/// In the order in which it has to be: chains that rules name, rules, and chains that no rule names
/// any more.
#[derive(Debug, Default)]
struct Edit {
    chains: String,
    rules: String,
    deleted: String,
    wrong: Vec<String>,
}

impl Edit {
    fn chain(&mut self, chain: &str, found: Option<&Vec<Line>>, order: Order, rules: &[String]) {
        let texts = |lines: &Vec<Line>| lines.iter().map(|line| line.text.clone()).collect();
        let found: Option<Vec<String>> = found.map(texts);
        match (&found, order) {
            (Some(found), Order::Matters) if found == rules => {}
            (Some(found), Order::Free) => self.lines(chain, found, rules),
            (Some(_) | None, Order::Matters) | (None, Order::Free) => {
                writeln!(self.chains, ":{chain} - [0:0]").ok();
                for rule in rules {
                    writeln!(self.rules, "-A {chain} {rule}").ok();
                }
                let wrong = if found.is_some() {
                    "changed"
                } else {
                    "deleted"
                };
                self.wrong.push(format!("{chain} was {wrong}"));
            }
        }
    }

    /// Rules that stand for themselves: those that are right go on counting.
    fn lines(&mut self, chain: &str, found: &[String], wanted: &[String]) {
        let mut surplus: BTreeMap<&str, usize> = BTreeMap::new();
        for rule in found {
            *surplus.entry(rule).or_default() += 1;
        }
        let mut missing = Vec::new();
        for rule in wanted {
            match surplus.get_mut(rule.as_str()) {
                Some(count) if *count > 0 => *count -= 1,
                Some(_) | None => missing.push(rule),
            }
        }
        surplus.retain(|_, count| *count > 0);
        if surplus.is_empty() && missing.is_empty() {
            return;
        }
        for (rule, count) in surplus {
            for _ in 0..count {
                writeln!(self.rules, "-D {chain} {rule}").ok();
            }
        }
        for rule in missing {
            writeln!(self.rules, "-A {chain} {rule}").ok();
        }
        self.wrong.push(format!("{chain} was changed"));
    }

    /// Each jump is there once, before what others have. Where in the chain it is found later is left to
    /// whoever moved it.
    fn hooks(&mut self, saved: &Saved, wanted: &Table) {
        let is_wanted = |(chain, rule): &(String, String)| {
            wanted.hooks.iter().any(|(c, r)| c == chain && r == rule)
        };
        let mut right: Vec<&(String, String)> = Vec::new();
        for hook in &saved.hooks {
            if is_wanted(hook) && !right.contains(&hook) {
                right.push(hook);
            } else if is_built_in(&hook.0) {
                writeln!(self.rules, "-D {} {}", hook.0, hook.1).ok();
                self.wrong.push(format!("{} had a jump more", hook.0));
            }
        }
        for (chain, rule) in &wanted.hooks {
            if !right.iter().any(|(c, r)| c == chain && r == rule) {
                writeln!(self.rules, "-I {chain} 1 {rule}").ok();
                self.wrong.push(format!("{chain} had no jump"));
            }
        }
    }

    fn surplus(&mut self, saved: &Saved, wanted: &Table) {
        let led_to = saved.led_to();
        let surplus = saved
            .chains
            .iter()
            .filter(|(chain, _)| !wanted.chains.contains_key(*chain));
        for (chain, lines) in surplus {
            // Somebody's own chain leads there: it cannot be deleted, only made empty.
            let is_held = led_to.contains(chain.as_str())
                && saved.hooks.iter().any(|(from, _)| !is_built_in(from));
            if is_held && lines.is_empty() {
                continue;
            }
            writeln!(self.chains, ":{chain} - [0:0]").ok();
            if !is_held {
                writeln!(self.deleted, "-X {chain}").ok();
            }
            self.wrong.push(format!("{chain} was there"));
        }
    }
}

/// Whether it is a chain that the kernel has, and not one that somebody made.
fn is_built_in(chain: &str) -> bool {
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Table {
        let mut table = Table::default();
        let rules = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        let chains = [
            ("MAINSTAY-A", (Order::Matters, rules(&["-j B", "-j C"]))),
            ("MAINSTAY-F", (Order::Free, rules(&["-d 1", "-d 2"]))),
        ];
        table.chains = chains.map(|(name, chain)| (name.to_owned(), chain)).into();
        table.hooks = vec![("INPUT", "-j MAINSTAY-A".to_owned())];
        table
    }

    const RIGHT: &str = ":MAINSTAY-A - [0:0]\n:MAINSTAY-F - [0:0]\n-A INPUT -j MAINSTAY-A\n\
        -A MAINSTAY-A -j B\n-A MAINSTAY-A -j C\n-A MAINSTAY-F -d 2\n-A MAINSTAY-F -d 1\n";

    fn mended(printed: &str) -> Option<String> {
        Some(mend("nat", &Saved::read(printed), &wanted())?.0)
    }

    #[test]
    fn what_is_right_is_left_alone() {
        assert_eq!(mended(RIGHT), None);
        assert_eq!(
            mended(&format!("{RIGHT}-A INPUT -j DOCKER\n:DOCKER - [0:0]\n")),
            None
        );
    }

    #[test]
    fn only_what_is_wrong_is_written() {
        let one = |body: &str| Some(format!("*nat\n{body}COMMIT\n"));
        assert_eq!(
            mended(&RIGHT.replace("-A MAINSTAY-A -j B\n", "")),
            one(":MAINSTAY-A - [0:0]\n-A MAINSTAY-A -j B\n-A MAINSTAY-A -j C\n")
        );
        assert_eq!(
            mended(&RIGHT.replace("-d 2", "-d 3")),
            one("-D MAINSTAY-F -d 3\n-A MAINSTAY-F -d 2\n")
        );
        assert_eq!(
            mended(&RIGHT.replace("-A INPUT -j MAINSTAY-A\n", "")),
            one("-I INPUT 1 -j MAINSTAY-A\n")
        );
        assert_eq!(
            mended(&format!("{RIGHT}-A INPUT -j MAINSTAY-A\n")),
            one("-D INPUT -j MAINSTAY-A\n")
        );
        assert_eq!(
            mended(&format!(
                "{RIGHT}:MAINSTAY-OLD - [0:0]\n-A MAINSTAY-OLD -j DROP\n"
            )),
            one(":MAINSTAY-OLD - [0:0]\n-X MAINSTAY-OLD\n")
        );
    }

    #[test]
    fn chains_of_others_keep_even_what_leads_to_ours() {
        let printed = format!("{RIGHT}:MAINSTAY-OLD - [0:0]\n-A THEIRS -j MAINSTAY-OLD\n");
        assert_eq!(mended(&printed), None);
    }

    #[test]
    fn all_that_is_ours_is_erased_and_nothing_else() {
        let printed = format!("{RIGHT}-A INPUT -j DOCKER\n");
        let text = erase("nat", &Saved::read(&printed)).unwrap();
        assert!(!text.contains("DOCKER") && !text.contains("\n-F"), "{text}");
        for part in [
            "-D INPUT -j MAINSTAY-A\n",
            "-X MAINSTAY-A\n",
            "-X MAINSTAY-F\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
