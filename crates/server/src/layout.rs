//! How the state lies in the store: a key for each service and each consumer, so that a change of
//! one writes one, and anybody can look at one.
//!
//! | Key | Value, as JSON |
//! |---|---|
//! | `/mainstay/meta` | what is a number or a name: format, node, epoch, last event |
//! | `/mainstay/services/NAME` | a service |
//! | `/mainstay/consumers/NAME` | a consumer |
//! | `/mainstay/FIELD` | any other field of the snapshot |
//!
//! What the values say is the core's affair: a field that it adds to its snapshot finds its place
//! by itself, and one with many entries gets a key for each by a line in [`FANNED_OUT`].

use std::collections::BTreeMap;

use mainstay_control::Snapshot;
use mainstay_store::{Key, KeyError};
use serde_json::{Map, Value};

/// What all keys begin with.
pub(crate) const PREFIX: &str = "/mainstay/";

/// The name of the key for what is a number or a name.
const META: &str = "meta";

/// Fields with a key for each entry: a list by where its entries have their name, a map (`None`) by
/// its keys.
const FANNED_OUT: &[(&str, Option<&str>)] = &[
    ("services", Some("/name")),
    ("consumers", Some("/consumer/name")),
];

/// The state as values by key.
pub(crate) type Values = BTreeMap<Key, Vec<u8>>;

/// Why a state and its keys do not fit together: a mistake of ours, or somebody's edit by hand.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The snapshot has another form than this module knows.
    #[error("field `{field}` of the state cannot be laid out: {problem}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A name cannot be a part of a key.
    #[error("field `{field}` of the state has an entry with an impossible name")]
    Name {
        /// The field.
        field: String,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A value is no JSON.
    #[error("the value of key `{key}` is damaged")]
    Value {
        /// The key.
        key: Key,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// All values are whole, and together they are no state.
    #[error("what is stored does not describe a state")]
    Whole(#[source] serde_json::Error),
}

fn field_error(field: &str, problem: &str) -> LayoutError {
    LayoutError::Field {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}

/// The values of `snapshot`.
pub(crate) fn split(snapshot: &Snapshot) -> Result<Values, LayoutError> {
    split_value(serde_json::to_value(snapshot).map_err(LayoutError::Whole)?)
}

fn split_value(whole: Value) -> Result<Values, LayoutError> {
    let Value::Object(fields) = whole else {
        return Err(field_error("", "it is no object"));
    };
    let mut values = Values::new();
    let mut meta = Map::new();
    for (field, value) in fields {
        let fanned_out = FANNED_OUT.iter().find(|(name, _)| *name == field);
        match (fanned_out, value) {
            (Some((_, name_at)), value) => {
                for (name, entry) in entries(&field, *name_at, value)? {
                    let key = format!("{PREFIX}{field}/{name}");
                    if values
                        .insert(key_of(&field, key)?, bytes(&entry)?)
                        .is_some()
                    {
                        return Err(field_error(&field, "two entries have one name"));
                    }
                }
            }
            (None, value @ (Value::Array(_) | Value::Object(_))) => {
                let key = format!("{PREFIX}{field}");
                values.insert(key_of(&field, key)?, bytes(&value)?);
            }
            (None, value) => {
                meta.insert(field, value);
            }
        }
    }
    let key = key_of(META, format!("{PREFIX}{META}"))?;
    values.insert(key, bytes(&Value::Object(meta))?);
    Ok(values)
}

/// The snapshot of `values`; `None`: there is none, nothing was ever saved.
pub(crate) fn join<'a>(
    values: impl Iterator<Item = (&'a Key, &'a [u8])>,
) -> Result<Option<Snapshot>, LayoutError> {
    let Some(whole) = join_value(values)? else {
        return Ok(None);
    };
    let snapshot = serde_json::from_value(whole);
    snapshot.map(Some).map_err(LayoutError::Whole)
}

fn join_value<'a>(
    values: impl Iterator<Item = (&'a Key, &'a [u8])>,
) -> Result<Option<Value>, LayoutError> {
    let mut fields = Map::new();
    for (field, name_at) in FANNED_OUT {
        let empty = match name_at {
            Some(_) => Value::Array(Vec::new()),
            None => Value::Object(Map::new()),
        };
        fields.insert((*field).to_owned(), empty);
    }
    let mut any = false;
    for (key, bytes) in values {
        let Some(path) = key.behind(PREFIX) else {
            continue;
        };
        any = true;
        let value = serde_json::from_slice(bytes).map_err(|source| LayoutError::Value {
            key: key.clone(),
            source,
        })?;
        match (path.split_once('/'), value) {
            (None, Value::Object(meta)) if path == META => fields.extend(meta),
            (None, value) => {
                fields.insert(path.to_owned(), value);
            }
            (Some((field, name)), value) => match fields.get_mut(field) {
                Some(Value::Array(list)) => list.push(value),
                Some(Value::Object(map)) => {
                    map.insert(name.to_owned(), value);
                }
                Some(_) | None => return Err(field_error(field, "it has no entries")),
            },
        }
    }
    Ok(any.then_some(Value::Object(fields)))
}

/// The entries of a field by their names.
fn entries(
    field: &str,
    name_at: Option<&str>,
    value: Value,
) -> Result<Vec<(String, Value)>, LayoutError> {
    match (name_at, value) {
        (None, Value::Object(map)) => Ok(map.into_iter().collect()),
        (Some(name_at), Value::Array(list)) => list
            .into_iter()
            .map(|entry| {
                let name = entry.pointer(name_at).and_then(Value::as_str);
                let name = name.ok_or_else(|| field_error(field, "an entry has no name"))?;
                Ok((name.to_owned(), entry))
            })
            .collect(),
        (Some(_), _) => Err(field_error(field, "it is no list")),
        (None, _) => Err(field_error(field, "it is no map")),
    }
}

fn key_of(field: &str, key: String) -> Result<Key, LayoutError> {
    Key::new(key).map_err(|source| LayoutError::Name {
        field: field.to_owned(),
        source,
    })
}

fn bytes(value: &Value) -> Result<Vec<u8>, LayoutError> {
    serde_json::to_vec(value).map_err(LayoutError::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn joined(values: &Values) -> Result<Option<Value>, LayoutError> {
        join_value(values.iter().map(|(key, value)| (key, value.as_slice())))
    }

    #[test]
    fn a_state_is_laid_out_by_name_and_put_together_again_with_fields_that_are_not_known_here() {
        let state = json!({
            "format": 1, "node": "local", "epoch": 7, "paused": null,
            "services": [{"name": "orders", "wanted": 2}, {"name": "payments", "wanted": 1}],
            "consumers": [{"consumer": {"name": "gate/way", "incarnation": 3}, "presence": "live"}],
            "retired": [["old", 4]],
            "nodes": {"a": {"labels": []}},
        });
        let values = split_value(state.clone()).expect("is laid out");
        let keys: Vec<&str> = values.keys().map(Key::as_str).collect();
        assert_eq!(
            keys,
            [
                "/mainstay/consumers/gate/way",
                "/mainstay/meta",
                "/mainstay/nodes",
                "/mainstay/retired",
                "/mainstay/services/orders",
                "/mainstay/services/payments",
            ]
        );
        assert_eq!(joined(&values).expect("fits"), Some(state));
    }

    #[test]
    fn nothing_is_no_state_and_a_state_without_entries_is_one() {
        assert_eq!(joined(&Values::new()).expect("fits"), None);
        let state = json!({"epoch": 1, "services": [], "consumers": []});
        let values = split_value(state.clone()).expect("is laid out");
        assert_eq!(joined(&values).expect("fits"), Some(state));
    }

    #[test]
    fn what_cannot_be_found_again_is_not_laid_out_and_damage_is_named() {
        let twice = json!({"services": [{"name": "a"}, {"name": "a"}]});
        assert!(split_value(twice).is_err());
        assert!(split_value(json!({"services": [{"wanted": 1}]})).is_err());
        let mut values = split_value(json!({"epoch": 1})).expect("is laid out");
        let key = Key::new("/mainstay/services/orders").expect("legal");
        values.insert(key, b"{torn".to_vec());
        let error = joined(&values).expect_err("is damaged").to_string();
        assert!(error.contains("/mainstay/services/orders"), "{error}");
    }
}
