//! Files that are replaced, never changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts `content` in the place of the file: after a crash, or a loss of power, the old or the new one
/// is there, whole. Once this returns, it is the new one.
///
/// `mode` is who may do what with it, before the umask; never more than that, whatever an earlier
/// attempt left beside it. Blocks for as long as the disk takes. On an error the old one is there, or
/// (if only the last step failed) the new one, which a loss of power may take back.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".tmp");
    // One that an earlier crash left would keep its permissions. What is no file was put there on
    // purpose: a pipe holds the writer until somebody reads.
    if fs::symlink_metadata(&next).is_ok_and(|found| found.is_file()) {
        fs::remove_file(&next)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&next)?;
    file.write_all(content)?;
    // Without this the new name could survive a loss of power and the content not.
    file.sync_all()?;
    fs::rename(&next, path)?;
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_an_earlier_crash_left_beside_it_lends_it_neither_content_nor_permissions() {
        let dir = TempDir::new("durable");
        let (path, next) = (dir.join("secret"), dir.join("secret.tmp"));
        fs::write(&next, "a torn and much longer text").unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!next.exists());
    }

    #[test]
    fn what_a_link_beside_it_leads_to_is_not_written() {
        let dir = TempDir::new("durable");
        let (path, target) = (dir.join("file"), dir.join("target"));
        std::os::unix::fs::symlink(&target, dir.join("file.tmp")).unwrap();
        replace(&path, b"new", 0o600).unwrap_err();
        assert!(!target.exists());
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was() {
        let dir = TempDir::new("durable");
        let path = dir.join("file");
        replace(&path, b"old", 0o600).unwrap();
        fs::create_dir(dir.join("file.tmp")).unwrap();
        replace(&path, b"new", 0o600).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
