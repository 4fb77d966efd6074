//! Replacing a file so that it is whole whenever the power fails: the old one or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::Error;

/// Makes a directory for its owner alone, if it is not there.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File {
        attempt: "make",
        path: path.to_owned(),
        source,
    };
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)
}

/// Puts `content` in the place of the file, readable for its owner alone. `Ok`: it is durable.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed = |attempt| {
        move |source| Error::File {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    let mut next = path.as_os_str().to_owned();
    next.push(".tmp");
    let next = Path::new(&next);
    // Another's, or one with other permissions, would keep them.
    if let Err(error) = fs::remove_file(next)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed("clear the way for")(error));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(next)
        .map_err(failed("create the file beside"))?;
    file.write_all(content).map_err(failed("write"))?;
    // Without this the rename could survive a power loss and the content not.
    file.sync_all().map_err(failed("make durable"))?;
    fs::rename(next, path).map_err(failed("replace"))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("make the new name durable of"))
}
