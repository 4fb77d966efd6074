//! What is read from the disk: the service file itself, and what lies where its programs should.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use mainstay_model::service::Artifact;
use mainstay_model::template::Piece;
use mainstay_model::{ServiceSpec, Template};

use super::Environment;
use super::limits::FILE_LEN_MAX;
use super::problem::{Code, FileProblems, Problem, Severity};
use super::refusal::{At, Lines, quoted};
use super::service::Draft;

/// Which of the files that people write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    Node,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Service => "service file",
            Self::Node => "node file",
        }
    }
}

/// Reads the text of the file, which messages call `kind`.
pub(crate) fn load(path: &Path, name: &str, kind: Kind) -> Result<String, FileProblems> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        // The length of a pipe or a device is not known before.
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path, and the directory you are in",
            io::ErrorKind::IsADirectory => "name the file in it, as in `shop.toml`",
            io::ErrorKind::PermissionDenied => "let the account that runs this read it",
            _ => "check the path and the disk",
        };
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        let message = format!("cannot read the {}: {reason}", kind.noun());
        return Err(FileProblems::unreadable(
            name,
            Code::Unreadable,
            message,
            help,
        ));
    }
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_LEN_MAX) {
        let most = FILE_LEN_MAX / 1024 / 1024;
        let message = format!("a {} has at most {most} MiB", kind.noun());
        let help = "check the path; such a file is some lines for each thing that it declares";
        return Err(FileProblems::unreadable(name, Code::TooMuch, message, help));
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(&error, name))
}

fn not_utf8(error: &std::string::FromUtf8Error, name: &str) -> FileProblems {
    let start = error.utf8_error().valid_up_to();
    let byte = error.as_bytes()[start];
    // Up to `start` the text is the same as in the file, so that the place fits.
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let place = Lines::new(&text).place(start..start + 1);
    let problem = Problem {
        severity: Severity::Error,
        code: Code::NotUtf8,
        key: String::new(),
        place: Some(place),
        message: format!("the file is not UTF-8: byte 0x{byte:02x}"),
        help: Some("save it as UTF-8, for instance with `iconv -t UTF-8`".to_owned()),
        also: None,
    };
    FileProblems::new(name.to_owned(), text, vec![problem], 0)
}

/// The absolute directory in which the file lies.
pub(crate) fn directory_of(path: &Path, name: &str) -> Result<PathBuf, FileProblems> {
    let absolute = std::path::absolute(path).map_err(|error| {
        let message = format!("cannot tell in which directory the file lies: {error}");
        let help = "the current directory may be gone: change to another one";
        FileProblems::unreadable(name, Code::Unreadable, message, help)
    })?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Looks at what lies where the programs and directories should, and notes the programs' files in
/// the specifications. What is not there is only worth a warning: the agent tells it for certain.
pub(super) fn examine(drafts: &mut [Draft], env: Environment<'_>) -> Vec<Problem> {
    let search = env("PATH").unwrap_or_default();
    let mut warnings = Vec::new();
    for draft in drafts {
        let Some(spec) = &mut draft.spec else {
            continue;
        };
        let warn = |code, at: &At, message: String, help: &str| Problem {
            severity: Severity::Warning,
            code,
            key: at.key.clone(),
            place: Some(at.place.clone()),
            message,
            help: Some(help.to_owned()),
            also: None,
        };
        if !Path::new(&spec.dir).is_dir() {
            let message = format!("there is no directory {} yet", quoted(&spec.dir));
            let help = "instances cannot start until it is there";
            warnings.push(warn(Code::DirectoryMissing, &draft.dir_at, message, help));
        }
        let Some(program) = spec.exec.first().and_then(literal) else {
            continue;
        };
        match find(&program, &search) {
            Found::Program(artifact) => {
                let script = script(spec);
                spec.artifact = Some(script.map_or(artifact, |script| together(artifact, script)));
            }
            Found::NotExecutable => {
                let message = format!("{} is no executable file", quoted(&program));
                let help = "instances cannot start until it is: `chmod +x`";
                warnings.push(warn(Code::ProgramMissing, &draft.exec_at, message, help));
            }
            Found::Nothing => {
                let (message, help) = missing(&program);
                warnings.push(warn(Code::ProgramMissing, &draft.exec_at, message, help));
            }
        }
    }
    warnings
}

fn missing(program: &str) -> (String, &'static str) {
    let message = if program.contains('/') {
        format!("there is no program {} yet", quoted(program))
    } else {
        format!("no program {} is found in PATH", quoted(program))
    };
    let help = match program {
        _ if program.contains(' ') => {
            "no shell splits it: write the program and each argument as a text of its own"
        }
        _ if program.contains('/') => "build it, or correct the path",
        _ => "install it, or write its path; one beside this file is `./NAME`",
    };
    (message, help)
}

/// The text of a template without places.
fn literal(template: &Template) -> Option<String> {
    let mut text = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Host | Piece::Port | Piece::Address(_) => return None,
        }
    }
    Some(text)
}

/// The file that a program of the machine, such as `python3`, runs: the first argument that is one.
/// What is changed between two versions of the service is that file, not the program.
fn script(spec: &ServiceSpec) -> Option<Artifact> {
    let (program, arguments) = spec.exec.split_first()?;
    if literal(program)?.contains('/') {
        return None;
    }
    let files = arguments.iter().filter_map(literal);
    files
        .map(|name| Path::new(&spec.dir).join(name))
        .find_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            metadata.is_file().then(|| artifact(&metadata))
        })
}

/// What changes when one of the two does.
fn together(one: Artifact, other: Artifact) -> Artifact {
    Artifact {
        len: one.len.wrapping_add(other.len),
        modified_ns: one.modified_ns.wrapping_add(other.modified_ns),
    }
}

enum Found {
    Program(Artifact),
    NotExecutable,
    Nothing,
}

/// Looks where starting an instance will look.
fn find(program: &str, search: &str) -> Found {
    if program.contains('/') {
        return look(Path::new(program));
    }
    let directories = search.split(':').map(Path::new);
    for directory in directories.filter(|directory| directory.is_absolute()) {
        if let Found::Program(artifact) = look(&directory.join(program)) {
            return Found::Program(artifact);
        }
    }
    Found::Nothing
}

fn look(path: &Path) -> Found {
    let Ok(metadata) = fs::metadata(path) else {
        return Found::Nothing;
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Found::NotExecutable;
    }
    Found::Program(artifact(&metadata))
}

fn artifact(metadata: &fs::Metadata) -> Artifact {
    let modified = metadata.modified().ok();
    let since_1970 = modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    Artifact {
        len: metadata.len(),
        modified_ns: since_1970.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0)),
    }
}
