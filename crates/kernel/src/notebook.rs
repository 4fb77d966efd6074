//! A file of numbered lines that one process writes and others read: what happened, for whoever comes later.
//!
//! ```text
//! notebook 1 1764300000000      form, and what tells this notebook from one that was begun anew
//! 17 {"..."}                    number, text
//! 18 {"..."}
//! ```
//!
//! It outlives a kill of its writer at any moment, not a loss of power, so that nothing is synced and no line waits for a
//! disk. Who reads never sees half a line. It is bounded: beyond [`LINES_MAX`] the oldest go.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The first word of the file, with the form that this program writes; another one is begun anew.
const HEAD: &str = "notebook 1";
/// What is kept when the file is written anew.
pub const KEPT: usize = 64;
/// Lines in the file before it is written anew: with [`LINE_LEN_MAX`] a quarter of a megabyte.
pub const LINES_MAX: usize = 256;
/// The longest text; what is longer is refused.
pub const LINE_LEN_MAX: usize = 1024;
/// What is read at most, whoever wrote it.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// What a notebook says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    /// What tells it from one that was begun anew, since the one before was lost.
    pub since: u64,
    /// The lines with their numbers, which grow by one.
    pub lines: Vec<(u64, String)>,
}

/// The notebook of its writer. There is one writer at a time.
#[derive(Debug)]
pub struct Notebook {
    path: PathBuf,
    since: u64,
    /// The last number that was given.
    last: u64,
    kept: VecDeque<(u64, String)>,
    /// `None`: the file is to be written anew before anything is added to it.
    file: Option<File>,
    lines: usize,
}

impl Notebook {
    /// Goes on with what is there. If there is nothing, or nothing that can be read, it is begun anew with `since`, which
    /// should be another one than ever before, such as the time.
    pub fn open(path: &Path, since: u64) -> Self {
        let pages = read(path).ok().flatten().unwrap_or(Pages {
            since,
            lines: Vec::new(),
        });
        let skip = pages.lines.len().saturating_sub(KEPT);
        let kept: VecDeque<(u64, String)> = pages.lines.into_iter().skip(skip).collect();
        Self {
            path: path.to_owned(),
            since: pages.since,
            last: kept.back().map_or(0, |(number, _)| *number),
            kept,
            // What an earlier writer was killed in the middle of is not gone on with.
            file: None,
            lines: 0,
        }
    }

    /// Adds a line; its number. Control characters of the text, of which there should be none, become blanks.
    pub fn write(&mut self, text: &str) -> io::Result<u64> {
        if text.len() > LINE_LEN_MAX {
            let why = format!("a line of {} bytes, of {LINE_LEN_MAX} at most", text.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        let text: String = text
            .chars()
            .map(|one| if one.is_control() { ' ' } else { one })
            .collect();
        self.last += 1;
        self.kept.push_back((self.last, text));
        while self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        let file = self.file.take().filter(|_| self.lines < LINES_MAX);
        let (file, lines) = match (file, self.kept.back()) {
            (Some(mut file), Some((number, text))) => {
                // What is cut by a full disk is written anew with the next line.
                file.write_all(format!("{number} {text}\n").as_bytes())?;
                (file, self.lines + 1)
            }
            (Some(_), None) | (None, _) => (self.write_anew()?, self.kept.len()),
        };
        self.file = Some(file);
        self.lines = lines;
        Ok(self.last)
    }

    /// What tells it from others.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// The latest lines.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = (u64, &str)> {
        self.kept
            .iter()
            .map(|(number, text)| (*number, text.as_str()))
    }

    fn write_anew(&self) -> io::Result<File> {
        let mut text = format!("{HEAD} {}\n", self.since);
        for (number, line) in &self.kept {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{number} {line}");
        }
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".tmp");
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        let mut file = options
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, &self.path)?;
        Ok(file)
    }
}

/// What is there now; `None`: no file. A last line that is being written is not there yet.
pub fn read(path: &Path) -> io::Result<Option<Pages>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let damaged = || io::Error::new(ErrorKind::InvalidData, "it is no notebook");
    let (head, rest) = text.split_once('\n').ok_or_else(damaged)?;
    let since = head.strip_prefix(HEAD).map(str::trim_start);
    let since = since.and_then(|since| since.parse().ok());
    let mut pages = Pages {
        since: since.ok_or_else(damaged)?,
        lines: Vec::new(),
    };
    for line in rest.split_inclusive('\n') {
        let Some(entry) = line.strip_suffix('\n').and_then(entry) else {
            break;
        };
        let follows = pages
            .lines
            .last()
            .is_none_or(|(last, _)| last + 1 == entry.0);
        if !follows {
            break;
        }
        pages.lines.push(entry);
    }
    Ok(Some(pages))
}

fn entry(line: &str) -> Option<(u64, String)> {
    let (number, text) = line.split_once(' ')?;
    Some((number.parse().ok()?, text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn numbers(path: &Path) -> Vec<u64> {
        let pages = read(path).unwrap().unwrap();
        pages.lines.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn the_next_writer_goes_on_with_the_numbers_and_a_lost_file_is_begun_anew() {
        let dir = TempDir::new("notebook");
        let path = dir.join("vip/happened");
        assert_eq!(read(&path).unwrap(), None);
        let mut first = Notebook::open(&path, 7);
        assert_eq!(first.write("one").unwrap(), 1);
        assert_eq!(first.write("t\nwo").unwrap(), 2);
        drop(first);
        let mut next = Notebook::open(&path, 8);
        assert_eq!((next.since(), next.write("three").unwrap()), (7, 3));
        let pages = read(&path).unwrap().unwrap();
        let texts: Vec<&str> = pages.lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "t wo", "three"]);
        fs::write(&path, "what is this").unwrap();
        assert!(read(&path).is_err());
        let mut anew = Notebook::open(&path, 9);
        assert_eq!((anew.since(), anew.write("four").unwrap()), (9, 1));
    }

    #[test]
    fn it_is_bounded_and_the_latest_lines_are_there() {
        let dir = TempDir::new("notebook-long");
        let path = dir.join("happened");
        let mut notebook = Notebook::open(&path, 1);
        for number in 1..=1000 {
            assert_eq!(notebook.write("x").unwrap(), number);
            let there = numbers(&path);
            assert!(there.len() <= LINES_MAX && there.last() == Some(&number));
            assert!(there.len() >= KEPT.min(usize::try_from(number).unwrap()));
        }
        let long = "x".repeat(LINE_LEN_MAX + 1);
        assert_eq!(
            notebook.write(&long).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(notebook.write("x").unwrap(), 1001);
    }

    #[test]
    fn wherever_its_writer_was_killed_whole_lines_are_read_and_the_next_one_goes_on() {
        let dir = TempDir::new("notebook-cut");
        let path = dir.join("happened");
        let mut notebook = Notebook::open(&path, 5);
        for text in ["alpha", "beta", "gamma"] {
            notebook.write(text).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let head = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in head..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let there = numbers(&path);
            let expected: Vec<u64> = (1..=u64::try_from(there.len()).unwrap()).collect();
            assert_eq!(there, expected, "cut at {cut}");
            let mut next = Notebook::open(&path, 6);
            let number = next.write("delta").unwrap();
            assert_eq!(number, expected.last().map_or(1, |last| last + 1));
            assert_eq!(numbers(&path).last(), Some(&number), "cut at {cut}");
            assert_eq!(read(&path).unwrap().unwrap().since, 5);
        }
    }
}
