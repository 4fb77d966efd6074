//! All files of a configuration as one tree of statements.

use std::rc::Rc;

use super::files::Files;
use super::lines::{self, Piece};
use super::{Place, Report};

/// Files that are read in all; a directory of snippets has some tens.
const FILES_MAX: usize = 256;
/// Bytes that are read in all.
const TOTAL_LEN_MAX: usize = 4 * 1024 * 1024;
/// Files that include each other; keepalived's examples need one.
const INCLUDES_DEEP_MAX: usize = 8;
/// Blocks in blocks: keepalived has four at most.
const BLOCKS_DEEP_MAX: usize = 8;

/// A line, with its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) place: Place,
    /// Not empty.
    pub(super) words: Vec<String>,
    /// The line as it stands there.
    pub(super) raw: String,
    pub(super) block: Option<Vec<Statement>>,
}

impl Statement {
    /// What it is about.
    pub(super) fn key(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// What stands behind the key.
    pub(super) fn values(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The lines of its block.
    pub(super) fn inner(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads the text and what it includes.
pub(super) fn grow(
    text: &str,
    name: &Rc<str>,
    files: &mut dyn Files,
    report: &mut Report,
) -> Vec<Statement> {
    let mut grower = Grower {
        files,
        report,
        levels: vec![Vec::new()],
        openings: Vec::new(),
        may_open: false,
        skipped: 0,
        files_read: 1,
        bytes_read: text.len(),
    };
    grower.file(text, name, 0);
    grower.end()
}

struct Grower<'a> {
    files: &'a mut dyn Files,
    report: &'a mut Report,
    /// The statements of the file, and those of each block that is open.
    levels: Vec<Vec<Statement>>,
    /// Where they were opened.
    openings: Vec<Place>,
    /// Whether the last piece was a statement, whose block may begin.
    may_open: bool,
    /// Blocks that are open below the deepest that is read; what is in them was refused.
    skipped: usize,
    files_read: usize,
    bytes_read: usize,
}

impl Grower<'_> {
    fn file(&mut self, text: &str, name: &Rc<str>, depth: usize) {
        for (line, piece) in lines::pieces(text) {
            let file = name.clone();
            let place = Place { file, line };
            match piece {
                Err(wrong) => self.report.wrong(&place, wrong.message, wrong.help),
                Ok(Piece::Open) => self.open(place),
                Ok(Piece::Close) => self.close(&place),
                Ok(Piece::Words(raw)) => self.line(place, raw, depth),
            }
        }
    }

    fn line(&mut self, place: Place, raw: String, depth: usize) {
        self.may_open = false;
        if self.skipped > 0 {
            return;
        }
        let words = lines::words(&raw);
        let Some(key) = words.first() else { return };
        let includes = [
            "include", "includer", "includem", "includew", "includeb", "includea",
        ];
        if includes.contains(&key.as_str()) {
            self.include(&place, words.get(1).map(String::as_str), depth);
            return;
        }
        let level = self
            .levels
            .last_mut()
            .expect("the file's own is never closed");
        level.push(Statement {
            place,
            words,
            raw,
            block: None,
        });
        self.may_open = true;
    }

    fn include(&mut self, place: &Place, pattern: Option<&str>, depth: usize) {
        let Some(pattern) = pattern else {
            let help = "write `include FILE`";
            self.report.wrong(place, "`include` names no file", help);
            return;
        };
        if depth == INCLUDES_DEEP_MAX {
            let message = format!("files include each other more than {INCLUDES_DEEP_MAX} deep");
            let help = "a file that includes itself has no end; take one `include` out";
            self.report.wrong(place, message, help);
            return;
        }
        let most = FILES_MAX.saturating_sub(self.files_read);
        let found = match self.files.included(&place.file, pattern, most) {
            Ok(found) => found,
            Err(why) => {
                let message = format!("cannot include `{pattern}`: {why}");
                let help = "put the file there, or take the line out";
                self.report.wrong(place, message, help);
                return;
            }
        };
        for (name, text) in found {
            self.files_read += 1;
            self.bytes_read += text.len();
            if self.files_read > FILES_MAX || self.bytes_read > TOTAL_LEN_MAX {
                let most = TOTAL_LEN_MAX / 1024;
                let message = format!("there are more than {FILES_MAX} files or {most} KiB in all");
                let help = "import the files of floating addresses alone";
                self.report.wrong(place, message, help);
                return;
            }
            self.file(&text, &name.into(), depth + 1);
        }
    }

    fn open(&mut self, place: Place) {
        let help = "count the braces above this line";
        if self.skipped > 0 || self.levels.len() > BLOCKS_DEEP_MAX {
            if self.skipped == 0 {
                let message = format!("there are more than {BLOCKS_DEEP_MAX} blocks in each other");
                self.report.wrong(&place, message, help);
            }
            self.skipped += 1;
            return;
        }
        if !self.may_open {
            let message = "there is a `{` with no word before it";
            self.report.wrong(&place, message, help);
        }
        // Also of what is refused, so that its end is found.
        self.openings.push(place);
        self.levels.push(Vec::new());
        self.may_open = false;
    }

    fn close(&mut self, place: &Place) {
        self.may_open = false;
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        if self.openings.pop().is_none() {
            let help = "count the braces above this line";
            self.report.wrong(place, "there is a `}` too many", help);
            return;
        }
        let block = self.levels.pop().unwrap_or_default();
        let around = self.levels.last_mut();
        if let Some(statement) = around.and_then(|level| level.last_mut()) {
            statement.block.get_or_insert_default().extend(block);
        }
    }

    fn end(mut self) -> Vec<Statement> {
        if let Some(place) = self.openings.pop() {
            let help = "write the `}` that is missing";
            self.report.wrong(&place, "this block has no end", help);
        }
        self.levels.swap_remove(0)
    }
}
