//! keepalived's configuration: read into floating addresses, and written from them, so that machines can change from one
//! to the other, one after the other, in both directions.
//!
//! What keepalived says and a node file cannot is told, each with its place; nothing is dropped in silence. What it
//! does beside VRRP (balancing, routes, BFD) is not taken over. Start reading at [`import`] and [`export()`]; then `lines`
//! and `tree` (how its files are cut up), `instance` (what becomes of a virtual router).
//!
//! The rules of its language are those of its `lib/parser.c`, of version 2.2.7: a line is a word and its values, `{` and
//! `}` stand anywhere outside of double quotes, `#` and `!` begin comments.

mod command;
mod export;
mod files;
mod instance;
mod lines;
mod reasons;
mod tracks;
mod tree;

use std::fmt;
use std::path::Path;
use std::rc::Rc;

use mainstay_model::VipSpec;

pub use export::{Exported, Unsaid, export};

use self::files::{Disk, Files, NoFiles};

/// Mistakes that are told of one configuration; behind so many, the rest are likely to follow from the first.
const PROBLEMS_MAX: usize = 100;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, as it was named.
    pub file: Rc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something that a node file does not say, or says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where it stands.
    pub place: Place,
    /// Its key, behind those of the blocks around it.
    pub key: String,
    /// Why it is left out, or what it is instead.
    pub why: String,
}

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The floating addresses, checked.
    pub vips: Vec<VipSpec>,
    /// What is not in them.
    pub left: Vec<Left>,
}

/// A mistake, for which nothing is taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// All that is wrong; not empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let Problem {
                place,
                message,
                help,
            } = problem;
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{place}: {message}\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Reads keepalived's configuration at `path`, and all that it includes.
pub fn import(path: &Path) -> Result<Imported, Problems> {
    let name: Rc<str> = path.display().to_string().into();
    let text = files::load(path).map_err(|why| {
        let place = Place {
            file: name.clone(),
            line: 1,
        };
        Problems(vec![Problem {
            place,
            message: format!("cannot read it: {why}"),
            help: "check the path; keepalived's file is usually /etc/keepalived/keepalived.conf"
                .to_owned(),
        }])
    })?;
    read(&text, &name, &mut Disk)
}

/// Reads the text of a configuration that includes nothing. `name` is what messages call the file.
pub fn parse(text: &str, name: &str) -> Result<Imported, Problems> {
    read(text, &name.into(), &mut NoFiles)
}

fn read(text: &str, name: &Rc<str>, files: &mut dyn Files) -> Result<Imported, Problems> {
    let mut report = Report::default();
    let tree = tree::grow(text, name, files, &mut report);
    let vips = instance::all(&tree, &mut report);
    if report.problems.is_empty() {
        let left = report.left;
        return Ok(Imported { vips, left });
    }
    Err(Problems(report.problems))
}

/// What is told of a configuration while it is read.
#[derive(Debug, Default)]
struct Report {
    problems: Vec<Problem>,
    left: Vec<Left>,
}

impl Report {
    fn wrong(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                place: place.clone(),
                message: message.into(),
                help: help.into(),
            });
        }
    }

    fn leave(&mut self, place: &Place, key: impl Into<String>, why: impl Into<String>) {
        self.left.push(Left {
            place: place.clone(),
            key: key.into(),
            why: why.into(),
        });
    }
}

#[cfg(test)]
mod tests;
