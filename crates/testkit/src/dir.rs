//! A directory for each test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

/// A new directory that is removed at the end, unless the test failed: then it stays and its path is printed.
///
/// It lies in the system's temporary directory, because the path of a unix socket may not be longer than 107 bytes.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Makes `<temp>/mainstay-tests-<user>/<name>-<pid>-<n>`, readable by everyone, since instances may run as other users.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = of_user("mainstay-tests").join(format!("{name}-{}-{number}", process::id()));
        // A dead process with our number may have left one.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("cannot clear {}: {error}", path.display())
            }
            _ => {}
        }
        fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` inside it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the test's files are kept in {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A path in the temporary directory for each user, since nobody can write into the directory of another.
pub(crate) fn of_user(name: &str) -> PathBuf {
    env::temp_dir().join(format!("{name}-{}", rustix::process::geteuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_test_that_passed_is_removed() {
        let dir = TempDir::new("passed");
        let path = dir.path().to_owned();
        fs::write(dir.join("file"), "content").unwrap();
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn the_directory_of_a_test_that_failed_is_kept() {
        let path = thread::spawn(|| {
            let dir = TempDir::new("failed");
            std::panic::panic_any(dir.path().to_owned());
        })
        .join()
        .unwrap_err()
        .downcast::<PathBuf>()
        .unwrap();
        assert!(path.is_dir());
        fs::remove_dir(&*path).unwrap();
    }
}
