//! What one of our processes wrote into its log before it ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// As many lines as an error with its causes and remedies has.
const LINES_MAX: usize = 10;

/// Only so much of the end of a log is read.
const LEN_MAX: u64 = 8 * 1024;

/// The last lines of `log`, none that stands before `from`.
pub(crate) fn last_words(log: &Path, from: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(LEN_MAX))))?;
    let mut text = Vec::new();
    file.take(LEN_MAX).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    Ok(last.iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn the_last_lines_are_read_and_none_of_an_earlier_process() -> io::Result<()> {
        let dir = TempDir::new("last-words");
        let log = dir.join("server.log");
        std::fs::write(&log, "of before\none\ntwo\n")?;
        assert_eq!(last_words(&log, 10)?, ["one", "two"]);
        let many = "a line\n".repeat(5000) + "the last\n";
        std::fs::write(&log, many)?;
        let last = last_words(&log, 10)?;
        assert_eq!(last.len(), LINES_MAX);
        assert_eq!(last.last().map(String::as_str), Some("the last"));
        Ok(())
    }
}
