//! Bindings, found from both of their ends.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Route;
use super::exchange::{Exchange, ExchangeKind, headers_match};
use super::topic::Patterns;
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

/// What is bound with one key: where to, and with which arguments, once with each.
type Bound = BTreeMap<Destination, Vec<Table>>;

/// The bindings of one exchange.
#[derive(Debug, Default)]
struct OfSource {
    keys: BTreeMap<ShortString, Bound>,
    /// Its keys as patterns, if it is a topic exchange.
    patterns: Option<Patterns>,
}

#[derive(Debug, Default)]
pub(super) struct Bindings {
    by_source: BTreeMap<ShortString, OfSource>,
    by_destination: BTreeMap<Destination, BTreeSet<(ShortString, ShortString)>>,
}

impl Bindings {
    pub(super) fn is_source(&self, exchange: &ShortString) -> bool {
        self.by_source.contains_key(exchange)
    }

    /// Adds a binding of an exchange that chooses in this way; whether it is a new one.
    pub(super) fn add(&mut self, kind: ExchangeKind, binding: Binding) -> bool {
        let Binding {
            source,
            destination,
            key,
            arguments,
        } = binding;
        let of_source = self.by_source.entry(source.clone()).or_default();
        let bound = of_source.keys.entry(key.clone()).or_default();
        let tables = bound.entry(destination.clone()).or_default();
        if tables.contains(&arguments) {
            return false;
        }
        tables.push(arguments);
        if kind == ExchangeKind::Topic {
            let patterns = of_source.patterns.get_or_insert_with(Patterns::new);
            patterns.add(&key);
        }
        let ends = self.by_destination.entry(destination).or_default();
        ends.insert((source, key));
        true
    }

    pub(super) fn remove(&mut self, binding: &Binding) -> bool {
        let Binding {
            source,
            destination,
            key,
            arguments,
        } = binding;
        let of_source = self.by_source.get_mut(source);
        let bound = of_source.and_then(|one| one.keys.get_mut(key));
        let Some(tables) = bound.and_then(|bound| bound.get_mut(destination)) else {
            return false;
        };
        let Some(at) = tables.iter().position(|one| one == arguments) else {
            return false;
        };
        tables.remove(at);
        if tables.is_empty() {
            self.take(source, key, destination);
        }
        true
    }

    /// Takes out what leads from one source with one key to one destination; the arguments of each.
    fn take(
        &mut self,
        source: &ShortString,
        key: &ShortString,
        destination: &Destination,
    ) -> Vec<Table> {
        if let Some(ends) = self.by_destination.get_mut(destination) {
            ends.remove(&(source.clone(), key.clone()));
            if ends.is_empty() {
                self.by_destination.remove(destination);
            }
        }
        let Some(of_source) = self.by_source.get_mut(source) else {
            return Vec::new();
        };
        let Some(bound) = of_source.keys.get_mut(key) else {
            return Vec::new();
        };
        let tables = bound.remove(destination).unwrap_or_default();
        if bound.is_empty() {
            of_source.keys.remove(key);
            if let Some(patterns) = &mut of_source.patterns {
                patterns.remove(key);
            }
        }
        if of_source.keys.is_empty() {
            self.by_source.remove(source);
        }
        tables
    }

    /// Takes out all bindings of these ends.
    fn take_all(
        &mut self,
        ends: impl IntoIterator<Item = (ShortString, ShortString, Destination)>,
    ) -> Vec<Binding> {
        let mut taken = Vec::new();
        for (source, key, destination) in ends {
            let tables = self.take(&source, &key, &destination);
            taken.extend(tables.into_iter().map(|arguments| Binding {
                source: source.clone(),
                destination: destination.clone(),
                key: key.clone(),
                arguments,
            }));
        }
        taken
    }

    pub(super) fn take_source(&mut self, source: &ShortString) -> Vec<Binding> {
        let keys = self.by_source.get(source).into_iter();
        let keys = keys.flat_map(|of_source| &of_source.keys);
        let ends: Vec<(ShortString, ShortString, Destination)> = keys
            .flat_map(|(key, bound)| {
                let end =
                    |destination: &Destination| (source.clone(), key.clone(), destination.clone());
                bound.keys().map(end)
            })
            .collect();
        self.take_all(ends)
    }

    pub(super) fn take_destination(&mut self, destination: &Destination) -> Vec<Binding> {
        let ends = self.by_destination.get(destination).cloned();
        let ends = ends.unwrap_or_default().into_iter();
        self.take_all(ends.map(|(source, key)| (source, key, destination.clone())))
    }

    /// Where a message goes from this exchange.
    pub(super) fn matching<'a>(
        &'a self,
        exchange: &Exchange,
        route: Route<'_>,
        mut found: impl FnMut(&'a Destination),
    ) {
        let Some(OfSource { keys, patterns }) = self.by_source.get(&exchange.name) else {
            return;
        };
        match exchange.chooses() {
            ExchangeKind::Direct | ExchangeKind::Default | ExchangeKind::Delayed => {
                let bound = route.keys.iter().filter_map(|key| keys.get(key));
                bound.flat_map(Bound::keys).for_each(found);
            }
            ExchangeKind::Fanout => keys.values().flat_map(Bound::keys).for_each(found),
            ExchangeKind::Topic => {
                for key in route.keys {
                    let Some(patterns) = patterns else { continue };
                    patterns.matching(key.as_bytes(), |pattern| {
                        let bound = keys.get(pattern).into_iter();
                        bound.flat_map(Bound::keys).for_each(&mut found);
                    });
                }
            }
            ExchangeKind::Headers => {
                let none = Table::EMPTY;
                let headers = route.headers.unwrap_or(&none);
                for (destination, tables) in keys.values().flatten() {
                    if tables.iter().any(|wanted| headers_match(wanted, headers)) {
                        found(destination);
                    }
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Binding> {
        self.by_source.iter().flat_map(|(source, of_source)| {
            of_source.keys.iter().flat_map(move |(key, bound)| {
                bound.iter().flat_map(move |(destination, tables)| {
                    tables.iter().map(move |arguments| Binding {
                        source: source.clone(),
                        destination: destination.clone(),
                        key: key.clone(),
                        arguments: arguments.clone(),
                    })
                })
            })
        })
    }
}
