//! The tables `[listen.NAME]`: entries to servers that Mainstay did not start.

use crate::file::problem::Code;
use crate::file::refusal::Refused;
use crate::file::walk::Entry;

/// Reads the table of all listeners, by name. `None`: something in it was refused.
pub(super) fn listens(entry: &Entry<'_, '_>) -> Option<()> {
    entry.entries("a table of listeners", "`[listen.rabbitmq]`")?;
    let message = "`listen` is not in this version";
    let refused = Refused::new(Code::NotInThisVersion, message);
    entry
        .walk()
        .refuse(&entry.at_key(), refused.help("take it out"));
    None
}
