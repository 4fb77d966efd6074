//! The files of a configuration: the one that is named, and those that it includes.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The longest file: keepalived's are some lines for each router and server.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Who finds included files.
pub(super) trait Files {
    /// The files that `pattern` means in the file `from`, by name and text, in order; else why there are none.
    fn included(
        &mut self,
        from: &str,
        pattern: &str,
        most: usize,
    ) -> Result<Vec<(String, String)>, String>;
}

/// Those of this machine.
#[derive(Debug)]
pub(super) struct Disk;

/// None at all.
#[derive(Debug)]
pub(super) struct NoFiles;

impl Files for NoFiles {
    fn included(
        &mut self,
        _from: &str,
        _pattern: &str,
        _most: usize,
    ) -> Result<Vec<(String, String)>, String> {
        Err("this configuration is read without files".to_owned())
    }
}

impl Files for Disk {
    fn included(
        &mut self,
        from: &str,
        pattern: &str,
        most: usize,
    ) -> Result<Vec<(String, String)>, String> {
        // As keepalived, from the directory of the file that includes.
        let dir = Path::new(from).parent().unwrap_or(Path::new(""));
        let dir = glob::Pattern::escape(&dir.to_string_lossy());
        let whole = Path::new(&dir).join(pattern);
        let found = glob::glob(&whole.to_string_lossy()).map_err(|error| error.to_string())?;
        // Whoever lists more than may be read is told of the limit by its reader.
        let paths: Result<Vec<PathBuf>, _> = found.take(most + 1).collect();
        let mut read = Vec::new();
        for path in paths.map_err(|error| error.to_string())? {
            let text = load(&path).map_err(|why| format!("`{}`: {why}", path.display()))?;
            read.push((path.display().to_string(), text));
        }
        if read.is_empty() {
            return Err("there is no such file".to_owned());
        }
        Ok(read)
    }
}

/// Reads a file of text, up to its limit; else why not.
pub(super) fn load(path: &Path) -> Result<String, String> {
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    // Opening a pipe would wait for whoever writes to it.
    if !about.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes);
    let len = read.map_err(|error| error.to_string())?;
    if u64::try_from(len).is_ok_and(|len| len > FILE_LEN_MAX) {
        return Err(format!("it has more than {} KiB", FILE_LEN_MAX / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8".to_owned())
}
