//! The files of the project, as the checks see them.

use crate::source::Source;
use anyhow::{Context as _, Result};
use std::{
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
};

/// Directories that hold what was built or recorded, wherever they are.
const NOT_OURS: [&str; 6] = [
    ".git",
    "target",
    ".mainstay",
    "corpus",
    "artifacts",
    "node_modules",
];

/// What a check found, at a place, with what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// A text file, its path relative to the root.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// The directory of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
}

/// All text files of the project, sorted by path.
pub(crate) fn text_files(root: &Path) -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    collect(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The Rust sources among them, each knowing which of its lines are tests.
pub(crate) fn sources(files: &[TextFile]) -> Vec<Source> {
    let mut sources: Vec<Source> = files
        .iter()
        .filter(|file| {
            file.path
                .extension()
                .is_some_and(|extension| extension == "rs")
        })
        .map(|file| Source::parse(&file.path, &file.text))
        .collect();
    let test_files: HashSet<PathBuf> = sources.iter().flat_map(Source::test_module_files).collect();
    for source in &mut sources {
        if test_files.contains(source.path()) {
            source.mark_all_as_test();
        }
    }
    sources
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<TextFile>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                collect(root, &path, files)?;
            }
        } else if kind.is_file() {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let relative = path.strip_prefix(root).expect("collected below the root");
            // What is not UTF-8 is no text of ours.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile {
                    path: relative.to_owned(),
                    text,
                });
            }
        }
    }
    Ok(())
}

/// Prints the findings and turns them into a failure.
pub(crate) fn report(check: &str, mut findings: Vec<Finding>) -> Result<()> {
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        return Ok(());
    }
    anyhow::bail!("{check}: {} to mend", findings.len())
}
