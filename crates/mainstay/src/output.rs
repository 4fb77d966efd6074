//! What is printed, when the reader may be gone: `mainstay ps | head -1`, `mainstay dev | tee log`.
//!
//! Rust's `println!` would end the program by a panic then, which for `dev` would leave everything
//! that it keeps without it.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Nobody reads standard output any more. The command ends without a word, as others end by
/// SIGPIPE.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for ReaderGone {}

/// A line of an answer. An error ends the command: who asked has gone.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    written(writeln!(io::stdout(), "{text}"))
}

/// A value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value).context("cannot write the answer")?)
}

/// What a write to standard output led to.
pub(crate) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.context("cannot write the answer"),
    }
}

/// A line about work that goes on whether somebody reads it or not.
pub(crate) fn tell(text: impl Display) {
    // Nobody is left to be told that nobody is left.
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line on standard error, for whoever may read it.
pub(crate) fn warn(text: impl Display) {
    warn_part(format_args!("{text}\n"));
}

/// A part of a line on standard error, shown at once.
pub(crate) fn warn_part(text: impl Display) {
    let mut out = io::stderr();
    // Nobody is left to be told that nobody is left.
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}
