//! What the kernel tells of transactions, of anybody: which tables they were about.

use std::io;

use super::dump::GENERIC_LEN;
use super::transaction::SUBSYSTEM;
use super::{Family, Generation, Name};
use crate::netlink::attribute::Attributes;
use crate::netlink::socket::{Message, Socket};

/// `NFNLGRP_NFTABLES`.
const GROUP: libc::c_int = 7;
/// `NFT_MSG_NEWGEN`: behind all that a transaction did.
const NEW_GENERATION: u16 = 15;
/// Datagrams that are read at once, of 8 KiB each and more: some 100,000 elements. With more it is as
/// if they were lost.
const DATAGRAMS_MAX: usize = 2048;

/// Transactions since one, as far as they were heard of.
///
/// What is heard can be lost, and comes a little later than what it is about: so it never says that
/// something was changed, only that nothing was.
#[derive(Debug)]
pub struct Notices {
    socket: Socket,
    table: Name,
    families: &'static [Family],
    run: Run,
}

/// Generations in a row of which each is known not to be about the tables that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Run {
    /// The one before the first of them.
    from: u32,
    to: u32,
    /// The transaction that is being told of is about them, or may be.
    touches: bool,
}

impl Run {
    fn end(&mut self, generation: u32) {
        let follows = self.to.checked_add(1) == Some(generation);
        if self.touches || !follows {
            self.from = generation;
        }
        self.to = generation;
        self.touches = false;
    }

    /// Of what was before nothing is known any more.
    fn lose(&mut self) {
        *self = Self {
            touches: true,
            ..Self::default()
        };
    }

    fn spares(self, before: u32, now: u32) -> bool {
        self.from != 0 && self.from <= before && before <= now && now <= self.to
    }
}

impl Notices {
    /// Listens in this thread's network namespace for what is about the tables of a name. Needs
    /// `CAP_NET_ADMIN` there.
    pub fn open(table: Name, families: &'static [Family]) -> io::Result<Self> {
        let socket = Socket::open()?;
        socket.join(GROUP)?;
        let run = Run::default();
        Ok(Self {
            socket,
            table,
            families,
            run,
        })
    }

    /// Takes in what has come. To be called now and then: what finds no room is lost.
    pub fn hear(&mut self) {
        let Self {
            socket,
            table,
            families,
            run,
        } = self;
        let heard = socket.hear(DATAGRAMS_MAX, |message| {
            run.hear(message, table.as_str(), families);
        });
        if heard.is_err() {
            self.run.lose();
        }
    }

    /// Whether it is certain that no transaction behind `before`, up to `now`, was about the tables.
    pub fn spare(&self, before: Generation, now: Generation) -> bool {
        self.run.spares(before.0, now.0)
    }
}

impl Run {
    fn hear(&mut self, message: Message<'_>, table: &str, families: &[Family]) {
        let Some((header, attributes)) = message.body.split_first_chunk::<GENERIC_LEN>() else {
            return;
        };
        let attributes = Attributes::of(attributes);
        if message.kind == SUBSYSTEM | NEW_GENERATION {
            let generation = attributes.find_number(1);
            match generation.and_then(|number| u32::try_from(number).ok()) {
                Some(generation) => self.end(generation),
                None => self.lose(),
            }
            return;
        }
        // Whatever it is about, its table stands first.
        let is_family = families.iter().any(|one| one.number() == header[0]);
        if is_family && attributes.find_text(1) == Some(table) {
            self.touches = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use mainstay_testkit::{Netns, is_root, program, skip};

    #[test]
    fn what_was_not_heard_spares_nothing() {
        let mut run = Run::default();
        assert!(!run.spares(0, 0) && !run.spares(7, 7));
        // The first that is heard of: nothing is known of those before.
        run.end(7);
        assert!(!run.spares(6, 7));
        run.end(8);
        run.end(9);
        assert!(run.spares(7, 9) && run.spares(8, 9) && run.spares(9, 9));
        assert!(!run.spares(6, 9) && !run.spares(8, 10));
        run.touches = true;
        run.end(10);
        assert!(!run.spares(9, 10));
        run.end(11);
        assert!(run.spares(10, 11));
        // One is missing.
        run.end(13);
        assert!(!run.spares(11, 13) && !run.spares(12, 13));
        run.end(14);
        run.lose();
        assert!(!run.spares(13, 14));
        // It may have begun before.
        run.end(15);
        assert!(!run.spares(14, 15));
        run.end(16);
        assert!(run.spares(15, 16));
    }

    #[test]
    fn system_transactions_about_other_tables_are_told_from_those_about_ours() {
        if !is_root() {
            return skip("needs root: makes a network namespace and rules in it");
        }
        let netns = Netns::new();
        let nft = |line: &str| {
            let mut command = netns.command(&program("nft"));
            assert!(command.arg(line).status().unwrap().success(), "{line}");
        };
        let table = Name::new("ours").unwrap();
        let families = &[Family::Inet, Family::Arp];
        let (mut notices, socket) = netns.enter(|| {
            let notices = Notices::open(table, families).unwrap();
            (notices, Socket::open().unwrap())
        });
        nft("add table inet ours; add set inet ours dead { type ipv4_addr; }");
        let mut before = socket.generation().unwrap();
        let mut is_spared = |line: &str| {
            nft(line);
            let now = socket.generation().unwrap();
            notices.hear();
            let spared = notices.spare(before, now);
            before = now;
            spared
        };
        assert!(is_spared("add table inet theirs; add table ip ours"));
        assert!(is_spared(
            "add chain inet theirs ours; add rule inet theirs ours accept"
        ));
        assert!(is_spared("delete table inet theirs; delete table ip ours"));
        for line in [
            "add element inet ours dead { 192.0.2.1 }",
            "flush set inet ours dead",
            "add chain inet ours any",
            "add rule inet ours any accept",
            "add table inet ours { flags dormant; }",
            "flush table inet ours",
            "add table arp ours",
            "delete table arp ours; add table inet theirs",
            "flush ruleset",
        ] {
            assert!(!is_spared(line), "{line}");
        }
        assert!(is_spared("add table inet theirs"));
        // More than there is room for.
        let elements: Vec<String> = (0..60_000_u32)
            .map(|index| std::net::Ipv4Addr::from(index).to_string())
            .collect();
        let file = mainstay_testkit::TempDir::new("notices");
        let path = file.path().join("many.nft");
        let elements = elements.join(", ");
        let text = format!(
            "add set inet theirs many {{ type ipv4_addr; }}\nadd element inet theirs many {{ {elements} }}\n"
        );
        std::fs::write(&path, text).unwrap();
        let mut many = netns.command(&program("nft"));
        assert!(many.arg("-f").arg(&path).status().unwrap().success());
        let now = socket.generation().unwrap();
        notices.hear();
        assert!(!notices.spare(before, now), "some of it was lost");
    }
}
