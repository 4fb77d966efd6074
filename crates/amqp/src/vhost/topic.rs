//! Patterns of a topic exchange: words between dots, `*` for one word, `#` for any number of them.
//!
//! They stand in a trie by their words. A key goes through it word by word, with all places at once where its words so
//! far may have led: it costs as many steps as there are such places, not as there are patterns.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::text::ShortString;

const ROOT: usize = 0;

/// The words of a text; an empty one has none, and between two dots there is an empty word.
pub(super) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = (!text.is_empty()).then_some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let dot = text.iter().position(|byte| *byte == b'.');
        rest = dot.map(|at| &text[at + 1..]);
        Some(dot.map_or(text, |at| &text[..at]))
    })
}

/// Where patterns with the same first words part.
#[derive(Debug, Default)]
struct Node {
    words: BTreeMap<Bytes, usize>,
    /// Behind a `*`.
    one: Option<usize>,
    /// Behind a `#`; it stays there whatever word follows.
    any: Option<usize>,
    /// What precedes it is a `#`.
    stays: bool,
    /// The pattern that ends here.
    pattern: Option<ShortString>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.words.is_empty() && self.one.is_none() && self.any.is_none() && self.pattern.is_none()
    }

    fn next(&self, word: &[u8]) -> Option<usize> {
        match word {
            b"*" => self.one,
            b"#" => self.any,
            word => self.words.get(word).copied(),
        }
    }
}

/// All patterns of an exchange.
#[derive(Debug)]
pub(super) struct Patterns {
    nodes: Vec<Node>,
    /// Nodes that are not used.
    free: Vec<usize>,
}

impl Patterns {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::from([Node::default()]),
            free: Vec::new(),
        }
    }

    /// Adds a pattern; one that is there stays there once.
    pub(super) fn add(&mut self, pattern: &ShortString) {
        let mut at = ROOT;
        for word in words(pattern.as_bytes()) {
            at = match self.nodes[at].next(word) {
                Some(next) => next,
                None => self.branch(at, word),
            };
        }
        self.nodes[at].pattern = Some(pattern.clone());
    }

    fn branch(&mut self, at: usize, word: &[u8]) -> usize {
        let new = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        let node = &mut self.nodes[at];
        match word {
            b"*" => node.one = Some(new),
            b"#" => node.any = Some(new),
            word => {
                node.words.insert(Bytes::copy_from_slice(word), new);
            }
        }
        self.nodes[new].stays = word == b"#";
        new
    }

    /// Takes a pattern out, with all that led to it alone.
    pub(super) fn remove(&mut self, pattern: &ShortString) {
        let mut way = Vec::new();
        let mut at = ROOT;
        for word in words(pattern.as_bytes()) {
            let Some(next) = self.nodes[at].next(word) else {
                return;
            };
            way.push((at, word));
            at = next;
        }
        self.nodes[at].pattern = None;
        for (before, word) in way.into_iter().rev() {
            if !self.nodes[at].is_empty() {
                return;
            }
            self.free.push(at);
            let node = &mut self.nodes[before];
            match word {
                b"*" => node.one = None,
                b"#" => node.any = None,
                word => {
                    node.words.remove(word);
                }
            }
            at = before;
        }
    }

    /// Each pattern that a key fits, once.
    pub(super) fn matching<'a>(&'a self, key: &[u8], mut found: impl FnMut(&'a ShortString)) {
        let mut places = Vec::new();
        self.enter(ROOT, &mut places);
        for word in words(key) {
            let mut next = Vec::new();
            for at in places {
                let node = &self.nodes[at];
                if node.stays {
                    next.push(at);
                }
                let ways = [node.words.get(word).copied(), node.one];
                for way in ways.into_iter().flatten() {
                    self.enter(way, &mut next);
                }
            }
            // Several ways may lead to one place, and on from there only once.
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        places.sort_unstable();
        places.dedup();
        for at in places {
            if let Some(pattern) = &self.nodes[at].pattern {
                found(pattern);
            }
        }
    }

    /// A place, and those behind a `#` that takes no word.
    fn enter(&self, at: usize, places: &mut Vec<usize>) {
        let mut at = Some(at);
        while let Some(place) = at {
            places.push(place);
            at = self.nodes[place].any;
        }
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len() - self.free.len()
    }
}
