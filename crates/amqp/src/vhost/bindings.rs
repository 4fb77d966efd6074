//! Bindings, found from both of their ends.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Route;
use super::exchange::{Exchange, ExchangeKind, headers_match};
use super::topic;
use crate::field::Table;
use crate::text::ShortString;

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// To a queue.
    Queue(ShortString),
    /// To another exchange.
    Exchange(ShortString),
}

/// A binding; two are the same if all of it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// From this exchange.
    pub source: ShortString,
    /// To there.
    pub destination: Destination,
    /// With this key.
    pub key: ShortString,
    /// With these arguments, sorted by name.
    pub arguments: Table,
}

#[derive(Debug)]
struct Bound {
    destination: Destination,
    arguments: Table,
}

type OfSource = BTreeMap<ShortString, Vec<Bound>>;

#[derive(Debug, Default)]
pub(super) struct Bindings {
    by_source: BTreeMap<ShortString, OfSource>,
    by_destination: BTreeMap<Destination, BTreeSet<(ShortString, ShortString)>>,
}

impl Bindings {
    pub(super) fn is_source(&self, exchange: &ShortString) -> bool {
        self.by_source.contains_key(exchange)
    }

    pub(super) fn add(&mut self, binding: Binding) -> bool {
        let Binding {
            source,
            destination,
            key,
            arguments,
        } = binding;
        let of_source = self.by_source.entry(source.clone()).or_default();
        let bound = of_source.entry(key.clone()).or_default();
        let known = bound
            .iter()
            .any(|one| one.destination == destination && one.arguments == arguments);
        if known {
            return false;
        }
        let ends = self.by_destination.entry(destination.clone()).or_default();
        ends.insert((source, key));
        bound.push(Bound {
            destination,
            arguments,
        });
        true
    }

    pub(super) fn remove(&mut self, binding: &Binding) -> bool {
        let taken = self.take(&binding.source, &binding.key, |bound| {
            bound.destination == binding.destination && bound.arguments == binding.arguments
        });
        !taken.is_empty()
    }

    /// Takes out what fits of one source and key.
    fn take(
        &mut self,
        source: &ShortString,
        key: &ShortString,
        fits: impl Fn(&Bound) -> bool,
    ) -> Vec<Binding> {
        let Some(of_source) = self.by_source.get_mut(source) else {
            return Vec::new();
        };
        let Some(bound) = of_source.get_mut(key) else {
            return Vec::new();
        };
        let (taken, kept): (Vec<Bound>, Vec<Bound>) =
            core::mem::take(bound).into_iter().partition(fits);
        let still: BTreeSet<&Destination> = kept.iter().map(|one| &one.destination).collect();
        for one in taken.iter().filter(|one| !still.contains(&one.destination)) {
            if let Some(ends) = self.by_destination.get_mut(&one.destination) {
                ends.remove(&(source.clone(), key.clone()));
                if ends.is_empty() {
                    self.by_destination.remove(&one.destination);
                }
            }
        }
        drop(still);
        *bound = kept;
        if bound.is_empty() {
            of_source.remove(key);
        }
        if of_source.is_empty() {
            self.by_source.remove(source);
        }
        let whole = |bound: Bound| Binding {
            source: source.clone(),
            destination: bound.destination,
            key: key.clone(),
            arguments: bound.arguments,
        };
        taken.into_iter().map(whole).collect()
    }

    pub(super) fn take_source(&mut self, source: &ShortString) -> Vec<Binding> {
        let of_source = self.by_source.get(source);
        let keys: Vec<ShortString> = of_source
            .map(|keys| keys.keys().cloned().collect())
            .unwrap_or_default();
        let take = |key: &ShortString| self.take(source, key, |_| true);
        keys.iter().flat_map(take).collect()
    }

    pub(super) fn take_destination(&mut self, destination: &Destination) -> Vec<Binding> {
        let ends = self.by_destination.get(destination).cloned();
        let mut taken = Vec::new();
        for (source, key) in ends.unwrap_or_default() {
            taken.extend(self.take(&source, &key, |bound| bound.destination == *destination));
        }
        taken
    }

    /// Where a message goes from this exchange.
    pub(super) fn matching<'a>(
        &'a self,
        exchange: &Exchange,
        route: Route<'_>,
        mut found: impl FnMut(&'a Destination),
    ) {
        let Some(of_source) = self.by_source.get(&exchange.name) else {
            return;
        };
        match exchange.chooses() {
            ExchangeKind::Direct | ExchangeKind::Default | ExchangeKind::Delayed => {
                let bound = route.keys.iter().filter_map(|key| of_source.get(key));
                for bound in bound.flatten() {
                    found(&bound.destination);
                }
            }
            ExchangeKind::Fanout => {
                for bound in of_source.values().flatten() {
                    found(&bound.destination);
                }
            }
            ExchangeKind::Topic => {
                for (pattern, bound) in of_source {
                    let fits =
                        |key: &ShortString| topic::matches(pattern.as_bytes(), key.as_bytes());
                    if route.keys.iter().any(fits) {
                        for bound in bound {
                            found(&bound.destination);
                        }
                    }
                }
            }
            ExchangeKind::Headers => {
                let none = Table::EMPTY;
                let headers = route.headers.unwrap_or(&none);
                let fits = |bound: &&Bound| headers_match(&bound.arguments, headers);
                for bound in of_source.values().flatten().filter(fits) {
                    found(&bound.destination);
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Binding> {
        self.by_source.iter().flat_map(|(source, keys)| {
            keys.iter().flat_map(move |(key, bound)| {
                bound.iter().map(move |bound| Binding {
                    source: source.clone(),
                    destination: bound.destination.clone(),
                    key: key.clone(),
                    arguments: bound.arguments.clone(),
                })
            })
        })
    }
}
