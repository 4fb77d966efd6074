//! The lines of one file: comments out, continued lines together, cut at braces and into words.

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Words, as they stand there.
    Words(String),
    /// `{`.
    Open,
    /// `}`.
    Close,
}

/// What is wrong with a line, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: &'static str,
    pub(super) help: &'static str,
}

impl Wrong {
    fn broken(message: &'static str) -> Self {
        let help = "mend the line; `keepalived -t -f FILE` finds such mistakes, too";
        Self { message, help }
    }
}

/// The pieces of a file, with their lines; or, with its line, what is wrong with a line.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = (usize, Result<Piece, Wrong>)> {
    logical_lines(text).flat_map(|(number, line)| {
        let line = line.map_err(Wrong::broken);
        let line = line.and_then(|line| refuse_macros(&line).map_or(Ok(line), Err));
        let cut = match line {
            Ok(line) => cut(&line).into_iter().map(Ok).collect(),
            Err(why) => vec![Err(why)],
        };
        cut.into_iter().map(move |piece| (number, piece))
    })
}

/// Definitions, and lines for some machines alone, mean what is not in the file.
fn refuse_macros(line: &str) -> Option<Wrong> {
    let defines = |rest: &str| {
        let name = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        name.len() < rest.len() && name.trim_start().starts_with('=')
    };
    let message = if line.trim_start().starts_with('@') {
        "lines for some machines alone (`@ID`) are not read"
    } else if line.trim_start().strip_prefix('$').is_some_and(defines) {
        "definitions (`$NAME=VALUE`) are not read"
    } else if ["${_", "$_"].iter().any(|begin| line.contains(begin)) {
        "names that keepalived defines (`${_INSTANCE}` and others) are not read"
    } else if ["~SEQ", "~LST"].iter().any(|begin| line.contains(begin)) {
        "lines that are repeated (`~SEQ`, `~LST`) are not read"
    } else {
        return None;
    };
    let help = "write out what they stand for on this machine, and import that";
    Some(Wrong { message, help })
}

/// Lines without comments, those that end with `\` together with the next one.
fn logical_lines(text: &str) -> impl Iterator<Item = (usize, Result<String, &'static str>)> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        let (first, line) = lines.next()?;
        let mut whole = String::new();
        let mut line = line;
        loop {
            let (kept, more) = match without_comment(line) {
                Ok(kept) => kept,
                Err(why) => return Some((first + 1, Err(why))),
            };
            whole.push_str(&kept);
            if !more {
                break;
            }
            match lines.next() {
                Some((_, next)) => line = next.trim_start(),
                None => break,
            }
        }
        Some((first + 1, Ok(whole)))
    })
}

/// What is left of a line without its comment, and whether it goes on in the next.
fn without_comment(line: &str) -> Result<(String, bool), &'static str> {
    let mut kept = String::new();
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => {
                let Some(next) = chars.next() else {
                    return Ok((kept, true));
                };
                // Elsewhere a backslash is for whoever reads the words.
                if quoted || !matches!(next, '#' | '!') {
                    kept.push('\\');
                }
                kept.push(next);
                continue;
            }
            '#' | '!' if !quoted => break,
            '\0' => return Err("there is a NUL in the line"),
            _ => {}
        }
        kept.push(c);
    }
    if quoted {
        return Err("a quote is not closed");
    }
    Ok((kept, false))
}

/// Cuts at braces outside of double quotes.
fn cut(line: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut words = String::new();
    let mut quoted = false;
    let end = |words: &mut String, pieces: &mut Vec<Piece>| {
        let trimmed = words.trim();
        if !trimmed.is_empty() {
            pieces.push(Piece::Words(trimmed.to_owned()));
        }
        words.clear();
    };
    for c in line.chars() {
        let brace = match c {
            '{' if !quoted => Piece::Open,
            '}' if !quoted => Piece::Close,
            _ => {
                quoted ^= c == '"';
                words.push(c);
                continue;
            }
        };
        end(&mut words, &mut pieces);
        pieces.push(brace);
    }
    end(&mut words, &mut pieces);
    pieces
}

/// The words of a line: what stands in double quotes is one.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.split_once('"').unwrap_or((quoted, ""))
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || c == '"');
            rest.split_at(end.unwrap_or(rest.len()))
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}
