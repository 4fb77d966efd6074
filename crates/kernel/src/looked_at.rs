//! Notices that files were changed, by a look at them each second.
//!
//! Not by inotify(7): editors and deployment tools replace the file, a directory above it or a link
//! to it, and each way needs a watch of its own. A look costs a microsecond, sees them all, and a
//! second is sooner than anybody asks whether the change is in force.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// How often it is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// By what one content of a file is told from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that are looked at, and belong together.
#[derive(Debug)]
pub struct LookedAt {
    paths: Vec<PathBuf>,
    /// What was read last.
    taken: Vec<Option<Stamp>>,
    /// What the last look saw.
    seen: Vec<Option<Stamp>>,
}

impl LookedAt {
    /// Call it before the files are first read: what changes from then on is a change.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let taken: Vec<Option<Stamp>> = paths.iter().map(stamp).collect();
        let seen = vec![None; paths.len()];
        Self { paths, taken, seen }
    }

    /// Whether they should be read again: one is another than was read last, and all have rested since
    /// the look before, so that nobody is in the middle of writing them. While one is not there, none is
    /// read: it may be about to be replaced, and what it said before stays in force.
    pub fn look(&mut self) -> bool {
        let now: Vec<Option<Stamp>> = self.paths.iter().map(stamp).collect();
        let rested = now == self.seen;
        self.seen.clone_from(&now);
        if now.contains(&None) || now == self.taken || !rested {
            return false;
        }
        self.taken = now;
        true
    }
}

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        len: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn a_file_is_read_again_when_it_changed_and_rests() -> std::io::Result<()> {
        let dir = TempDir::new("looked-at");
        let path = dir.join("node.toml");
        fs::write(&path, "a")?;
        let mut file = LookedAt::new(vec![path.clone()]);
        assert!(!file.look() && !file.look(), "nothing changed");
        fs::write(&path, "")?;
        assert!(!file.look(), "it may be in the middle of a write");
        fs::write(&path, "whole")?;
        assert!(!file.look());
        assert!(file.look());
        assert!(!file.look(), "it was read");
        Ok(())
    }

    #[test]
    fn a_replaced_file_and_a_replaced_link_are_seen_and_a_removed_one_is_left()
    -> std::io::Result<()> {
        let dir = TempDir::new("looked-at");
        let (one, two, path) = (
            dir.join("1.toml"),
            dir.join("2.toml"),
            dir.join("node.toml"),
        );
        fs::write(&one, "a")?;
        fs::write(&two, "b")?;
        std::os::unix::fs::symlink(&one, &path)?;
        let mut file = LookedAt::new(vec![path.clone()]);
        fs::remove_file(&path)?;
        assert!(!file.look() && !file.look(), "it is not there");
        std::os::unix::fs::symlink(&two, &path)?;
        assert!(!file.look());
        assert!(file.look());
        fs::rename(&one, &two)?;
        assert!(!file.look());
        assert!(file.look());
        Ok(())
    }

    #[test]
    fn files_that_belong_together_are_read_when_all_of_them_rest() -> std::io::Result<()> {
        let dir = TempDir::new("looked-at");
        let (certificate, key) = (dir.join("certificate"), dir.join("key"));
        fs::write(&certificate, "a")?;
        fs::write(&key, "a")?;
        let mut files = LookedAt::new(vec![certificate.clone(), key.clone()]);
        fs::write(&certificate, "new")?;
        assert!(!files.look());
        fs::write(&key, "new")?;
        assert!(!files.look(), "the key was changed since the last look");
        assert!(files.look() && !files.look());
        Ok(())
    }
}
