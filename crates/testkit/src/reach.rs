//! Files that instances of another account can reach.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The service file `file` so that its instances can be started by whoever runs this.
///
/// As root, a service runs under an account that may not enter, for instance, `/root`. Where
/// `file` or `programs` lie in such a place, a copy at `copy` says `user = "root"` for each service;
/// otherwise it is `file` itself.
pub fn service_file_in_reach(file: &Path, programs: &Path, copy: &Path) -> io::Result<PathBuf> {
    let file = file.canonicalize()?;
    let in_reach = anyone_may_enter(&file)? && anyone_may_enter(&programs.canonicalize()?)?;
    if in_reach || !crate::is_root() {
        return Ok(file);
    }
    let dir = file.parent().unwrap_or(Path::new("/")).display();
    let account = format!("user = \"root\"\ndir = \"{dir}\"");
    let mut lines = Vec::new();
    let text = fs::read_to_string(&file)?;
    for line in text.lines() {
        lines.push(line);
        if line.starts_with("[service.") {
            lines.push(&account);
        }
    }
    let text = lines.join("\n");
    fs::write(copy, text)?;
    Ok(copy.to_owned())
}

/// Whether every account may enter all directories above `path`.
fn anyone_may_enter(path: &Path) -> io::Result<bool> {
    for above in path.ancestors().skip(1) {
        if fs::metadata(above)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TempDir, is_root};

    #[test]
    fn a_file_out_of_reach_is_copied_for_root_alone() {
        let dir = TempDir::new("reach");
        let file = dir.join("shut/shop.toml");
        fs::create_dir(dir.join("shut")).unwrap();
        fs::write(&file, "[service.a]\nexec = [\"./a\"]\n").unwrap();
        let found = |mode| {
            fs::set_permissions(dir.join("shut"), fs::Permissions::from_mode(mode)).unwrap();
            let copy = dir.join("copy.toml");
            let found = service_file_in_reach(&file, dir.path(), &copy).unwrap();
            fs::read_to_string(found).unwrap()
        };
        assert!(!found(0o755).contains("user"));
        let expected = format!(
            "[service.a]\nuser = \"root\"\ndir = \"{}\"\nexec",
            dir.join("shut").canonicalize().unwrap().display()
        );
        assert_eq!(found(0o700).starts_with(&expected), is_root());
    }
}
