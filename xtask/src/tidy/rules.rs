//! Habits: what code does that we do not want to read, and what to write instead.

use super::{Finding, Source, finding};

/// Where a pattern is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Everywhere,
    InTests,
    OutsideTests,
}

/// A stretch of code, written without white space, that is refused, and what to do instead.
struct Pattern {
    /// A whole word; what follows it is in `rest`.
    word: &'static str,
    rest: &'static str,
    before: &'static str,
    place: Where,
    instead: &'static str,
}

const PATTERNS: [Pattern; 9] = [
    Pattern {
        word: "unwrap",
        rest: "()",
        before: ".",
        place: Where::OutsideTests,
        instead: "`unwrap()` outside tests: return the error, or `expect(..)` with the invariant's name",
    },
    Pattern {
        word: "sleep",
        rest: "(",
        before: "",
        place: Where::InTests,
        instead: "`sleep` in a test: wait for a state with `mainstay_testkit::wait_until`, or pass the time in",
    },
    Pattern {
        word: "todo",
        rest: "!",
        before: "",
        place: Where::Everywhere,
        instead: "`todo!`: build it, or return an error that says what is not in this version",
    },
    Pattern {
        word: "unimplemented",
        rest: "!",
        before: "",
        place: Where::Everywhere,
        instead: "`unimplemented!`: build it, or return an error that says what is not in this version",
    },
    Pattern {
        word: "ignore",
        rest: "",
        before: "#[",
        place: Where::Everywhere,
        instead: "an ignored test: repair it, delete it, or call `mainstay_testkit::skip` where it cannot run",
    },
    Pattern {
        word: "should_panic",
        rest: "",
        before: "#[",
        place: Where::Everywhere,
        instead: "`should_panic`: return an error and assert on it, or catch the panic and look at its message",
    },
    Pattern {
        word: "unbounded_channel",
        rest: "",
        before: "",
        place: Where::Everywhere,
        instead: "an unbounded channel: bound it by a named constant that says why this many and what happens when it is full",
    },
    Pattern {
        word: "unbounded",
        rest: "()",
        before: "",
        place: Where::Everywhere,
        instead: "an unbounded channel: bound it by a named constant that says why this many and what happens when it is full",
    },
    Pattern {
        word: "new",
        rest: "(\"",
        before: "Command::",
        place: Where::InTests,
        instead: "a program by its bare name: `Command::new(mainstay_testkit::program(\"..\"))`, so that set-up knows it",
    },
];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    for pattern in &PATTERNS {
        for at in source.words(pattern.word) {
            let line = source.line_at(at);
            let here = match pattern.place {
                Where::Everywhere => true,
                Where::InTests => source.is_test(line),
                Where::OutsideTests => !source.is_test(line),
            };
            let after = at + pattern.word.len();
            if here
                && source.ahead(after, pattern.rest.len()) == pattern.rest
                && ends_with(&source.code()[..at], pattern.before)
            {
                findings.push(finding(source, line, pattern.instead));
            }
        }
    }
    unfinished(source, findings);
    globs(source, findings);
}

/// Every program that is started by `mainstay_testkit::program` must be in set-up's list, and must be named there.
pub(super) fn programs(source: &Source, listed: &[&str], findings: &mut Vec<Finding>) {
    let imported = source
        .words("use")
        .into_iter()
        .map(|at| source.statement_at(at))
        .any(|import| {
            import.starts_with("usemainstay_testkit::")
                && import
                    .split(|c| !crate::source::is_name(c))
                    .any(|name| name == "program")
        });
    for at in source.words("program") {
        let qualified = ends_with(&source.code()[..at], "mainstay_testkit::");
        let bare = imported && !ends_with(&source.code()[..at], ".");
        let argument = at + "program".len();
        if !(qualified || bare) || source.ahead(argument, 1) != "(" {
            continue;
        }
        let open = source.code()[argument..]
            .iter()
            .take_while(|c| **c != '(')
            .count()
            + 1;
        let line = source.line_at(at);
        match source.literal_at(argument + open) {
            Some(name) if listed.contains(&name.as_str()) => {}
            Some(name) => {
                let what = format!(
                    "`{name}` is not installed by set-up: add it to crates/testkit/programs.txt"
                );
                findings.push(finding(source, line, what));
            }
            None => {
                let what = "a program that is not named here: write its name as a literal, so that set-up's list can be compared";
                findings.push(finding(source, line, what));
            }
        }
    }
}

/// Notes to oneself; they belong into an issue, where they are seen.
fn unfinished(source: &Source, findings: &mut Vec<Finding>) {
    for line in source.lines() {
        let text = source.comment_line(line);
        let mut words = text.split(|c: char| !crate::source::is_name(c));
        if let Some(word) = words.find(|word| ["TODO", "FIXME", "XXX"].contains(word)) {
            let what =
                format!("`{word}`: do it, or open an issue and say here what holds until then");
            findings.push(finding(source, line, what));
        }
    }
}

/// Glob imports hide where a name comes from.
fn globs(source: &Source, findings: &mut Vec<Finding>) {
    for at in source.words("use") {
        let statement = source.statement_at(at);
        let line = source.line_at(at);
        // `use<'a>` is no import: it says what an opaque type captures.
        let glob = !statement.starts_with("use<")
            && ["::*", "{*", ",*"]
                .iter()
                .any(|glob| statement.contains(glob));
        let of_tests = statement == "usesuper::*" && source.is_test(line);
        if glob && !of_tests {
            findings.push(finding(
                source,
                line,
                "a glob import: name what is used (tests may `use super::*`)",
            ));
        }
    }
}

/// Whether the code ends with `end`; white space at its end does not count.
fn ends_with(code: &[char], end: &str) -> bool {
    let mut before = code.iter().rev().filter(|c| !c.is_whitespace());
    end.chars().rev().all(|c| before.next() == Some(&c))
}
