//! Every code that a user can meet has its line in `docs/errors`, and no line speaks of one that is gone.

use crate::tree::{Finding, TextFile};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// An enum whose variants are codes, and the page that explains them.
struct Family {
    source: &'static str,
    name: &'static str,
    spelling: Spelling,
    /// Variants that are no code themselves.
    without: &'static [&'static str],
    page: &'static str,
    depth: Depth,
}

/// Where a code is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// In its row of the page.
    Row,
    /// The row leads to a page of its own, named like the code.
    OwnPage,
}

/// How a variant is written where users meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// `not_utf8`
    Snake,
    /// `no-route`
    Kebab,
    /// The number that it is given.
    Number,
}

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family { source: "crates/api/src/file/problem.rs", name: "Code", spelling: Spelling::Snake, without: &[], page: "docs/errors/service-file.md", depth: Depth::Row },
    Family { source: "crates/model/src/problem.rs", name: "ProblemCode", spelling: Spelling::Kebab, without: &[], page: "docs/errors/api.md", depth: Depth::OwnPage },
    Family { source: "crates/gateway/src/refusal.rs", name: "Reason", spelling: Spelling::Kebab, without: &["Unavailable"], page: "docs/errors/gateway.md", depth: Depth::Row },
    Family { source: "crates/model/src/routing.rs", name: "Unavailable", spelling: Spelling::Kebab, without: &[], page: "docs/errors/gateway.md", depth: Depth::Row },
    Family { source: "crates/model/src/report.rs", name: "StartFailure", spelling: Spelling::Snake, without: &[], page: "docs/errors/instances.md", depth: Depth::Row },
    Family { source: "crates/mainstay/src/outcome.rs", name: "Outcome", spelling: Spelling::Number, without: &[], page: "docs/errors/exit-codes.md", depth: Depth::Row },
];

/// Compares each page with the enums that it explains.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let pages: BTreeSet<&str> = FAMILIES.iter().map(|family| family.page).collect();
    let mut findings = Vec::new();
    for page in pages {
        let mut codes = BTreeSet::new();
        for family in FAMILIES.iter().filter(|family| family.page == page) {
            let found = text(files, family.source).map(|source| family.codes(source));
            match found {
                Some(found) if !found.is_empty() => codes.extend(found),
                Some(_) | None => findings.push(finding(
                    "xtask/src/tidy/codes.rs",
                    1,
                    format!(
                        "`{}` is not in {}: correct the table",
                        family.name, family.source
                    ),
                )),
            }
        }
        findings.extend(compare(page, text(files, page).unwrap_or_default(), &codes));
    }
    findings.extend(check_own_pages(files));
    findings
}

fn text<'a>(files: &'a [TextFile], path: &str) -> Option<&'a str> {
    let file = files.iter().find(|file| file.path == Path::new(path));
    file.map(|file| file.text.as_str())
}

fn compare(path: &str, page: &str, codes: &BTreeSet<String>) -> Vec<Finding> {
    let explained: BTreeSet<&str> = page.lines().filter_map(row).collect();
    let missing = codes
        .iter()
        .filter(|code| !explained.contains(code.as_str()))
        .map(|code| {
            finding(
                path,
                1,
                format!("`{code}` has no line: say its cause and remedy"),
            )
        });
    let stale = page.lines().enumerate().filter_map(|(at, line)| {
        let code = row(line).filter(|code| !codes.contains(*code))?;
        Some(finding(
            path,
            at + 1,
            format!("there is no code `{code}`: remove the line"),
        ))
    });
    missing.chain(stale).collect()
}

/// The headings that a code's own page must have.
const SECTIONS: [&str; 3] = ["## Cause", "## What to do", "## Example"];

/// Each code with a page of its own has it, whole, and no page is left over.
fn check_own_pages(files: &[TextFile]) -> Vec<Finding> {
    let families = FAMILIES
        .iter()
        .filter(|family| family.depth == Depth::OwnPage);
    let codes = families
        .filter_map(|family| Some(family.codes(text(files, family.source)?)))
        .flatten();
    let mut findings = Vec::new();
    let mut pages: BTreeSet<String> = FAMILIES.iter().map(|family| family.page.into()).collect();
    pages.insert("docs/errors/README.md".to_owned());
    for code in codes {
        let path = format!("docs/errors/{code}.md");
        let page = text(files, &path).unwrap_or_default();
        for wanted in [format!("# `{code}`")]
            .iter()
            .map(String::as_str)
            .chain(SECTIONS)
        {
            if !page.lines().any(|line| line == wanted) {
                findings.push(finding(&path, 1, format!("`{wanted}` is missing")));
            }
        }
        pages.insert(path);
    }
    let left = files.iter().filter_map(|file| file.path.to_str());
    let left = left.filter(|path| path.starts_with("docs/errors/") && !pages.contains(*path));
    findings.extend(left.map(|path| finding(path, 1, "there is no such code: remove it".into())));
    findings
}

fn finding(path: &str, line: usize, what: String) -> Finding {
    Finding {
        path: PathBuf::from(path),
        line,
        what,
    }
}

/// The code of a table's row, which stands alone in its first cell.
fn row(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?
        .split_once("` |")
        .map(|(code, _)| code)
}

impl Family {
    fn codes(&self, source: &str) -> BTreeSet<String> {
        let head = format!("enum {} {{", self.name);
        let body = source
            .lines()
            .skip_while(|line| !line.ends_with(&head))
            .skip(1)
            .take_while(|line| *line != "}");
        body.map(str::trim)
            .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
            .filter_map(|line| self.code(line))
            .collect()
    }

    /// `NotUtf8,` or `Holds = 0,` as users meet it.
    fn code(&self, variant: &str) -> Option<String> {
        let end = variant.find(|c: char| !c.is_ascii_alphanumeric());
        let (name, rest) = variant.split_at(end.unwrap_or(variant.len()));
        if self.without.contains(&name) {
            return None;
        }
        Some(match self.spelling {
            Spelling::Snake => words(name).join("_"),
            Spelling::Kebab => words(name).join("-"),
            Spelling::Number => rest.chars().filter(char::is_ascii_digit).collect(),
        })
    }
}

fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for character in name.chars() {
        match words.last_mut() {
            Some(word) if !character.is_ascii_uppercase() => word.push(character),
            Some(_) | None => words.push(character.to_ascii_lowercase().to_string()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "pub enum Code {\n    /// Not text.\n    NotUtf8,\n    Holds = 3,\n    System(i32),\n}\nenum Other {\n    Elsewhere,\n}\n";

    fn codes(spelling: Spelling, without: &'static [&'static str]) -> Vec<String> {
        let family = Family {
            depth: Depth::Row,
            source: "",
            name: "Code",
            spelling,
            without,
            page: "",
        };
        family.codes(SOURCE).into_iter().collect()
    }

    #[test]
    fn codes_are_read_as_users_meet_them() {
        assert_eq!(codes(Spelling::Snake, &[]), ["holds", "not_utf8", "system"]);
        assert_eq!(codes(Spelling::Kebab, &["System"]), ["holds", "not-utf8"]);
        assert_eq!(codes(Spelling::Number, &["NotUtf8", "System"]), ["3"]);
    }

    #[test]
    fn a_code_without_a_line_and_a_line_without_a_code_are_found() {
        let codes = BTreeSet::from(["syntax".to_owned(), "value".to_owned()]);
        let page = "| Code | Cause |\n|---|---|\n| `value` | a `value` |\n| `gone` | old |\n";
        let found: Vec<String> = compare("p.md", page, &codes)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "p.md:1: `syntax` has no line: say its cause and remedy",
                "p.md:4: there is no code `gone`: remove the line"
            ]
        );
    }

    #[test]
    fn a_code_without_its_page_and_a_page_without_a_code_are_found() {
        let file = |path: &str, text: &str| TextFile {
            path: PathBuf::from(path),
            text: text.to_owned(),
        };
        let source = "pub enum ProblemCode {\n    Here,\n    Away,\n}\n";
        let whole = "# `here`\n\n## Cause\n\n## What to do\n\n## Example\n";
        let files = [
            file("crates/model/src/problem.rs", source),
            file("docs/errors/here.md", whole),
            file("docs/errors/gone.md", whole),
        ];
        let found: Vec<String> = check_own_pages(&files)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "docs/errors/away.md:1: `# `away`` is missing",
                "docs/errors/away.md:1: `## Cause` is missing",
                "docs/errors/away.md:1: `## What to do` is missing",
                "docs/errors/away.md:1: `## Example` is missing",
                "docs/errors/gone.md:1: there is no such code: remove it"
            ]
        );
    }

    #[test]
    fn a_family_that_moved_is_told() {
        assert!(
            check(&[])
                .iter()
                .any(|found| found.what.contains("correct the table"))
        );
    }
}
