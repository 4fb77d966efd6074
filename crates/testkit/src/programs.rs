//! The programs that tests start, and the packages that bring them.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Where Debian's packages put programs. Looked at before `PATH`, which lacks some of them for an ordinary user, and
/// which may name wrappers first that change the environment or that other users cannot run.
const SYSTEM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// One line of `programs.txt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// What is started.
    pub name: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
    /// What cannot be done without it.
    pub need: Need,
    /// The unit that systemd would start at the next boot because the package was installed.
    pub unit: Option<&'static str>,
}

/// What a program is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To build, or to install the test tools.
    Build,
    /// By tests.
    Test,
    /// By benches alone: a rival to be measured against.
    Bench,
}

/// All lines of `programs.txt`.
pub fn programs() -> impl Iterator<Item = Program> {
    include_str!("../programs.txt")
        .lines()
        .filter_map(parse_line)
}

/// The path of a program that tests may start; panics with the package to install if it is not there.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let Some(listed) = programs().find(|program| program.name == name) else {
        panic!("`{name}` is not in crates/testkit/programs.txt, so set-up would not install it")
    };
    find(name).unwrap_or_else(|| {
        panic!(
            "`{name}` is missing: run `cargo xtask setup` or `apt-get install {}`",
            listed.package
        )
    })
}

/// Looks a program up in the system's directories and in `PATH`. A name with its whole path is a
/// file that must be there, such as a module of Python.
pub fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        let file = PathBuf::from(name);
        return file.is_file().then_some(file);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    SYSTEM_DIRS
        .map(PathBuf::from)
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn parse_line(line: &'static str) -> Option<Program> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let (Some(package), Some(need), Some(unit), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        panic!("programs.txt: `{line}` has not four words")
    };
    let need = match need {
        "build" => Need::Build,
        "test" => Need::Test,
        "bench" => Need::Bench,
        other => panic!("programs.txt: `{other}` is not build, test or bench"),
    };
    Some(Program {
        name,
        package,
        need,
        unit: (unit != "-").then_some(unit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_can_be_read_and_names_a_program_once() {
        let names: Vec<&str> = programs().map(|program| program.name).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert!(names.len() > 3, "{names:?}");
        assert_eq!(names.len(), once.len(), "{names:?}");
    }

    #[test]
    fn a_program_that_is_not_in_the_list_is_refused_even_if_it_is_there() {
        assert!(find("cat").is_some());
        let panic = std::panic::catch_unwind(|| program("cat")).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("programs.txt"), "{text}");
    }

    #[test]
    fn what_is_not_executable_is_not_found() {
        assert_eq!(find("../../etc/passwd"), None);
    }

    #[test]
    fn a_file_with_its_whole_path_need_not_be_executable() {
        assert!(find("/etc/passwd").is_some());
        assert_eq!(find("/etc/no-such-file"), None);
    }
}
