//! The service file: what a user types in TOML becomes checked [`ServiceSpec`]s, or a list of all
//! that is wrong with it, each with its place and what to do.
//!
//! The file's tree is walked key by key in the order of the file, with nothing that stops at the
//! first mistake. A key that nobody asks for is refused, a wrong type never becomes a default.
//! Start reading at [`read`]; then `service` (the keys), `walk` (how a table is read), `problem`
//! (what is told), `schema` (the same keys for editors and for the reference page).

mod across;
pub mod defaults;
pub(crate) mod disk;
mod health;
pub(crate) mod later;
pub mod limits;
mod matching;
pub mod order;
pub(crate) mod problem;
mod program;
pub(crate) mod reference;
pub(crate) mod refusal;
mod render;
mod resources;
mod rollout;
pub(crate) mod schema;
mod secret;
pub(crate) mod service;
pub(crate) mod suggest;
mod traffic;
pub(crate) mod units;
mod variable;
pub(crate) mod walk;

use std::path::Path;

use mainstay_model::ServiceSpec;

pub use problem::{Code, FileProblems, Problem, Severity};
pub use reference::reference;
pub use render::Look;
pub use schema::schema;

use service::Draft;

/// How a variable of the environment is asked for.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a service file says.
#[derive(Debug, Clone)]
pub struct Read {
    /// Its services, in the order of the file; at least one.
    pub services: Vec<ServiceSpec>,
    /// What may be meant so and may be a mistake: a program that is not there yet.
    pub warnings: FileProblems,
}

/// Reads the service file at `path`, with `env` for `${VARIABLE}` and for `PATH`.
///
/// Relative paths in the file begin at the directory in which `path` lies. The programs' files are
/// looked at, so that one that was built anew makes a new version.
pub fn read(path: &Path, env: Environment<'_>) -> Result<Read, FileProblems> {
    let name = path.display().to_string();
    let text = disk::load(path, &name, disk::Kind::Service)?;
    let dir = disk::directory_of(path, &name)?;
    let text = without_byte_order_mark(&text);
    let mut drafts = drafts(text, &name, &dir, env)?;
    let warnings = disk::examine(&mut drafts, env);
    Ok(Read {
        services: specs(drafts),
        warnings: FileProblems::new(name, text.to_owned(), warnings, 0),
    })
}

/// Reads the text of a service file without looking at the disk. `name` is what problems call the
/// file, `dir` the absolute directory at which its relative paths begin.
pub fn parse(
    text: &str,
    name: &str,
    dir: &Path,
    env: Environment<'_>,
) -> Result<Vec<ServiceSpec>, FileProblems> {
    drafts(text, name, dir, env).map(specs)
}

/// It is no part of the text: places are counted behind it.
pub(crate) fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn specs(drafts: Vec<Draft>) -> Vec<ServiceSpec> {
    drafts.into_iter().filter_map(|draft| draft.spec).collect()
}

/// Every service of the file, each with its specification; or every problem.
fn drafts(
    text: &str,
    name: &str,
    dir: &Path,
    env: Environment<'_>,
) -> Result<Vec<Draft>, FileProblems> {
    let text = without_byte_order_mark(text);
    let walk = walk::Walk::new(text, env);
    let drafts = if let Some(dir) = dir.to_str() {
        service::file(&walk, dir)
    } else {
        let message = "the file's directory has a name that is not UTF-8";
        let help = "move the file to a directory with a plain name";
        walk.refuse_file(Code::Value, message, help);
        Vec::new()
    };
    across::check(&walk, &drafts);
    walk.finish(name).map(|()| drafts)
}
