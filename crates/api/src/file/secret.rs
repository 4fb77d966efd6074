//! Values that do not stand in the file: `secret:NAME`.

use std::collections::BTreeMap;

use mainstay_ids::SecretName;
use mainstay_model::Template;
use toml::de::DeValue;

use super::refusal::{Refused, quoted};
use super::walk::Entry;

/// What stands before the name of a secret.
const PREFIX: &str = "secret:";

/// A service's environment: what stands in the file, and what does not.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) texts: BTreeMap<String, Template>,
    pub(super) secrets: BTreeMap<String, SecretName>,
}

/// Whether the value of a variable is typed as `secret:NAME`. A text that only begins so after a
/// `${VARIABLE}` was filled in is a text.
pub(super) fn is_secret(entry: &Entry<'_, '_>) -> bool {
    matches!(entry.value(), DeValue::String(typed) if typed.starts_with(PREFIX))
}

/// The secret that the value names.
pub(super) fn secret(entry: &Entry<'_, '_>) -> Option<SecretName> {
    entry.text("a secret, as in `secret:db`", "`\"secret:db\"`", |text| {
        let name = text.strip_prefix(PREFIX).unwrap_or(text);
        SecretName::parse(name).map_err(|error| {
            let refused = Refused::value(format!(
                "`secret:` wants a secret's name: {error}; found {}",
                quoted(name)
            ));
            let likely = name.to_lowercase().replace(['_', ' ', '.'], "-");
            match SecretName::parse(&likely) {
                Ok(likely) => refused.help(format!("did you mean `secret:{likely}`?")),
                Err(_) => refused.help(
                    "a secret stands for the whole value; `mainstay secret ls` lists their names",
                ),
            }
        })
    })
}
