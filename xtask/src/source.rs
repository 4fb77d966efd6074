//! A Rust file with its comments and the contents of its literals told apart from its code.
//!
//! No parser: the rules need only to know what is code, where functions and tests begin and end, and on which
//! line. It reads any text without failing; on what is not Rust its answers mean nothing.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// One file. All positions are counted in characters, so that `text`, `code` and `comments` line up.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    text: Vec<char>,
    code: Vec<char>,
    comments: Vec<char>,
    /// The position of the first character of each line.
    line_starts: Vec<usize>,
    /// For each line, whether it is only compiled for tests.
    test_lines: Vec<bool>,
    /// Modules in files of their own that are only compiled for tests.
    test_modules: Vec<String>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn parse(path: &Path, text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        let (code, comments) = split(&text);
        let starts = text
            .iter()
            .enumerate()
            .filter(|(_, c)| **c == '\n')
            .map(|(at, _)| at + 1);
        let line_starts: Vec<usize> = std::iter::once(0)
            .chain(starts)
            .filter(|at| *at == 0 || *at < text.len())
            .collect();
        let whole = is_test_path(path);
        let mut source = Self {
            path: path.to_owned(),
            test_lines: vec![whole; line_starts.len()],
            test_modules: Vec::new(),
            text,
            code,
            comments,
            line_starts,
        };
        source.find_tests();
        source
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The code, with comments and the contents of literals replaced by spaces.
    pub(crate) fn code(&self) -> &[char] {
        &self.code
    }

    /// The lines, counted from 1.
    pub(crate) fn lines(&self) -> Range<usize> {
        1..self.line_starts.len() + 1
    }

    pub(crate) fn code_line(&self, line: usize) -> String {
        self.code[self.line_range(line)].iter().collect()
    }

    pub(crate) fn comment_line(&self, line: usize) -> String {
        self.comments[self.line_range(line)].iter().collect()
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_lines[line - 1]
    }

    pub(crate) fn mark_all_as_test(&mut self) {
        self.test_lines.fill(true);
    }

    /// The line of a position.
    pub(crate) fn line_at(&self, position: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= position)
    }

    /// Where `word` stands in the code as a whole word.
    pub(crate) fn words(&self, word: &str) -> Vec<usize> {
        let word: Vec<char> = word.chars().collect();
        let places = self.code.windows(word.len()).enumerate();
        let found = places.filter(|(at, window)| {
            window[0] == word[0]
                && *window == word
                && !at
                    .checked_sub(1)
                    .is_some_and(|before| is_name(self.code[before]))
                && !self.code.get(at + word.len()).copied().is_some_and(is_name)
        });
        found.map(|(at, _)| at).collect()
    }

    /// The code from a position on, without white space, up to `length` characters.
    pub(crate) fn ahead(&self, position: usize, length: usize) -> String {
        self.code[position..]
            .iter()
            .filter(|c| !c.is_whitespace())
            .take(length)
            .collect()
    }

    /// The content of the string literal whose opening quote is the next thing at or after a position.
    pub(crate) fn literal_at(&self, position: usize) -> Option<String> {
        let quote = position
            + self.code[position..]
                .iter()
                .position(|c| !c.is_whitespace())?;
        if self.code[quote] != '"' {
            return None;
        }
        let length = self.code[quote + 1..].iter().position(|c| *c == '"')?;
        Some(self.text[quote + 1..quote + 1 + length].iter().collect())
    }

    /// The statement that begins at a position, up to its semicolon, without white space.
    pub(crate) fn statement_at(&self, position: usize) -> String {
        let rest = self.code[position..].iter();
        rest.take_while(|c| **c != ';')
            .filter(|c| !c.is_whitespace())
            .collect()
    }

    /// The name that follows a keyword at a position.
    pub(crate) fn name_after(&self, position: usize) -> Option<String> {
        let rest = self.code[position..].iter().skip_while(|c| is_name(**c));
        let name: String = rest
            .skip_while(|c| c.is_whitespace())
            .take_while(|c| is_name(**c))
            .collect();
        (!name.is_empty()).then_some(name)
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in self.words("fn") {
            let Some(name) = self.name_after(at) else {
                continue;
            };
            let end = self.item_end(at);
            if self.code.get(end) == Some(&'}') {
                let line = self.line_at(at);
                functions.push(Function {
                    name,
                    line,
                    lines: self.line_at(end) - line + 1,
                });
            }
        }
        functions
    }

    /// The files in which the modules of [`Self::find_tests`] may be.
    pub(crate) fn test_module_files(&self) -> Vec<PathBuf> {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        let stem = self.path.file_stem().unwrap_or_default();
        let own = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let dir = if own { dir.to_owned() } else { dir.join(stem) };
        let files = self.test_modules.iter();
        files
            .flat_map(|name| {
                [
                    dir.join(format!("{name}.rs")),
                    dir.join(name).join("mod.rs"),
                ]
            })
            .collect()
    }

    fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.line_starts[line - 1];
        let end = self
            .line_starts
            .get(line)
            .map_or(self.text.len(), |next| next - 1);
        // The last line may lack its end.
        let end = if end > start && self.text[end - 1] == '\n' {
            end - 1
        } else {
            end
        };
        start..end
    }

    /// Marks the items under `#[cfg(test)]`.
    fn find_tests(&mut self) {
        for at in self.words("cfg") {
            let condition = self.ahead(at, 80);
            let condition = condition.split(']').next().unwrap_or_default();
            let attribute = at > 1 && self.code[at - 1] == '[' && self.code[at - 2] == '#';
            let tests = ["cfg(test)", "cfg(all(test"]
                .iter()
                .any(|start| condition.starts_with(start));
            if !attribute || !tests {
                continue;
            }
            let item = at + self.code[at..].iter().take_while(|c| **c != ']').count() + 1;
            let end = self.item_end(item.min(self.code.len()));
            if self.code.get(end) == Some(&';') {
                let text = self.statement_at(item);
                let module = text
                    .strip_prefix("pub")
                    .unwrap_or(&text)
                    .strip_prefix("mod");
                self.test_modules.extend(module.map(str::to_owned));
            }
            let last = self.line_at(end.min(self.code.len().saturating_sub(1)));
            let first = self.line_at(at);
            self.test_lines[first - 1..last].fill(true);
        }
    }

    /// Where the item that begins at a position ends: at its closing brace, its semicolon, or the end of the file.
    fn item_end(&self, position: usize) -> usize {
        let mut braces = 0_usize;
        let mut brackets = 0_usize;
        for (at, c) in self.code.iter().enumerate().skip(position) {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => braces += 1,
                '}' if braces <= 1 => return at,
                '}' => braces -= 1,
                ';' if braces == 0 && brackets == 0 => return at,
                _ => {}
            }
        }
        self.code.len()
    }
}

pub(crate) fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn is_test_path(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    parts.any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
}

/// What a stretch of characters is.
#[derive(Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Splits a text into its code and its comments, both as long as the text, with spaces for the rest.
fn split(text: &[char]) -> (Vec<char>, Vec<char>) {
    let mut code = Vec::with_capacity(text.len());
    let mut comments = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (kind, end) = token(text, at);
        for c in &text[at..end] {
            let blank = if *c == '\n' { '\n' } else { ' ' };
            code.push(if matches!(kind, Kind::Code) {
                *c
            } else {
                blank
            });
            comments.push(if matches!(kind, Kind::Comment) {
                *c
            } else {
                blank
            });
        }
        if matches!(kind, Kind::Literal) && text[at] != '\'' {
            // The quotes stay, so that rules see that a literal is there.
            let close = text[at..end].iter().rposition(|c| *c == '"').unwrap_or(0);
            let open = text[at..end]
                .iter()
                .position(|c| *c == '"')
                .unwrap_or(close);
            if text[at + open] == '"' {
                code[at + open] = '"';
                code[at + close] = '"';
            }
        }
        at = end;
    }
    (code, comments)
}

/// The kind of what begins at `at`, and where it ends; always at least one character further.
fn token(text: &[char], at: usize) -> (Kind, usize) {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => (Kind::Comment, find(text, at, |c| c == '\n')),
        '/' if next == Some('*') => (Kind::Comment, block_comment_end(text, at)),
        '"' => (Kind::Literal, quoted_end(text, at)),
        '\'' if next == Some('\\') || text.get(at + 2) == Some(&'\'') => {
            (Kind::Literal, quoted_end(text, at))
        }
        'r' if begins_word(text, at) => match raw_string_end(text, at) {
            Some(end) => (Kind::Literal, end),
            None => (Kind::Code, at + 1),
        },
        _ => (Kind::Code, at + 1),
    }
}

/// Whether a raw string may begin here: alone, or after the `b` or `c` of a byte or C string.
fn begins_word(text: &[char], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).map(|place| text[place]);
    match before(1) {
        Some('b' | 'c') => !before(2).is_some_and(is_name),
        other => !other.is_some_and(is_name),
    }
}

fn find(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    text[from..]
        .iter()
        .position(|c| wanted(*c))
        .map_or(text.len(), |distance| from + distance)
}

fn block_comment_end(text: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    text.len()
}

/// The end of a literal whose delimiter is the character at `start`, which a backslash escapes.
fn quoted_end(text: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            c if c == text[start] => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string_end(text: &[char], start: usize) -> Option<usize> {
    let hashes = text[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if text.get(open) != Some(&'"') {
        return None;
    }
    let mut at = open + 1;
    while at < text.len() {
        let closing = text[at] == '"'
            && text[at + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes;
        if closing {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::parse(Path::new("crates/x/src/lib.rs"), text)
    }

    fn code(text: &str) -> String {
        source(text).code.iter().collect()
    }

    #[test]
    fn comments_are_no_code_however_they_are_written() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(code("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(code("a /* never ends"), "a              ");
    }

    #[test]
    fn the_contents_of_strings_are_no_code_but_their_quotes_are() {
        assert_eq!(code(r#"f("x{\"y", z)"#), r#"f("     ", z)"#);
        assert_eq!(code("f(r#\"a\"{b\"#)"), "f(  \"    \" )");
        assert_eq!(code("br\"{\" x"), "b \" \" x");
        assert_eq!(code("f(\"never ends"), "f(\"          ");
    }

    #[test]
    fn character_literals_are_told_from_lifetimes() {
        assert_eq!(code("'{' '\\'' b'}' 'é' 'a"), "         b        'a");
        assert_eq!(code("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(code("'\"' \"{\""), "    \" \"");
        assert_eq!(code("r#type + for_r\"{\""), "r#type + for_r\" \"");
    }

    #[test]
    fn comments_can_be_read_alone() {
        let source = source("let x = \"// no\"; // yes\n");
        assert_eq!(source.comment_line(1).trim(), "// yes");
    }

    #[test]
    fn functions_are_measured_from_their_first_line_to_their_last_brace() {
        let text = "fn a() {}\n\nfn b(x: [u8; 3]) -> u8\nwhere\n    u8: Copy,\n{\n    if x { '}' }\n}\n\
                    trait T { fn declared(); }\ntype F = fn(u8) -> u8;\n";
        let found = source(text).functions();
        let expected = [
            Function {
                name: "a".to_owned(),
                line: 1,
                lines: 1,
            },
            Function {
                name: "b".to_owned(),
                line: 3,
                lines: 6,
            },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_items_under_cfg_test_are_tests() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n\
                    #[cfg(not(test))]\nfn d() {}\n#[cfg(all(test, unix))]\nuse x::{y, z};\nfn e() {}\n";
        let source = source(text);
        let tests: Vec<usize> = source
            .lines()
            .filter(|line| source.is_test(*line))
            .collect();
        assert_eq!(tests, [2, 3, 4, 5, 9, 10]);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_found() {
        let at_root = source("#[cfg(test)]\nmod machine;\nmod other;\n");
        let expected = ["crates/x/src/machine.rs", "crates/x/src/machine/mod.rs"];
        assert_eq!(at_root.test_module_files(), expected.map(PathBuf::from));
        let below = Source::parse(Path::new("crates/x/src/a.rs"), "#[cfg(test)]\nmod b;\n");
        assert_eq!(
            below.test_module_files()[0],
            Path::new("crates/x/src/a/b.rs")
        );
    }

    #[test]
    fn files_below_tests_are_tests() {
        let file = Source::parse(Path::new("crates/x/tests/a.rs"), "fn a() {}\n");
        assert!(file.is_test(1));
    }

    #[test]
    fn every_prefix_of_a_file_can_be_read() {
        let text: Vec<char> = include_str!("source.rs").chars().collect();
        // A prime, so that the cuts fall on all kinds of places.
        for end in (0..text.len()).step_by(61) {
            let prefix: String = text[..end].iter().collect();
            let source = source(&prefix);
            assert_eq!(source.code.len(), end);
            source.functions();
        }
    }
}
