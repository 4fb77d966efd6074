//! Which crate may know which: the table, and the check of the tree against it.
//!
//! A new arrow is a line in [`CRATES`], so that it is seen in review.

use crate::{
    cargo,
    source::Source,
    tree::{self, Finding},
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{collections::BTreeSet, path::PathBuf};

/// From the bottom up; an arrow points to a lower tier, or from one crate of words to another, or
/// from one adapter to another that stands below it: what is stored stands on `sqlite`, or on the
/// disk of `journal`, and what forwards on `kernel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// Identities, time; checked specs.
    Words,
    /// Decides; no sockets, files, clock, threads.
    Core,
    /// Talks to one outside thing; decides nothing.
    Adapter,
    /// An event loop; drivers never know each other.
    Driver,
    /// Arguments, wiring, supervisor.
    Binary,
    /// Never shipped; may know anything, is known by tests alone.
    Dev,
}

struct Crate {
    name: &'static str,
    tier: Tier,
    /// The crates of the workspace that it may depend on.
    uses: &'static [&'static str],
}

#[rustfmt::skip]
const CRATES: &[Crate] = &[
    Crate { name: "mainstay-ids", tier: Tier::Words, uses: &[] },
    Crate { name: "mainstay-exposition", tier: Tier::Words, uses: &[] },
    Crate { name: "mainstay-model", tier: Tier::Words, uses: &["mainstay-ids"] },
    Crate { name: "mainstay-control", tier: Tier::Core, uses: &["mainstay-ids", "mainstay-model"] },
    Crate { name: "mainstay-http1", tier: Tier::Core, uses: &[] },
    Crate { name: "mainstay-vrrp", tier: Tier::Core, uses: &["mainstay-ids"] },
    Crate { name: "mainstay-amqp", tier: Tier::Core, uses: &["mainstay-ids"] },
    Crate { name: "mainstay-kernel", tier: Tier::Adapter, uses: &[] },
    Crate { name: "mainstay-journal", tier: Tier::Adapter, uses: &[] },
    Crate { name: "mainstay-tls", tier: Tier::Adapter, uses: &[] },
    Crate { name: "mainstay-scrape", tier: Tier::Adapter, uses: &["mainstay-exposition"] },
    Crate { name: "mainstay-sqlite", tier: Tier::Adapter, uses: &[] },
    Crate { name: "mainstay-store", tier: Tier::Adapter, uses: &["mainstay-ids", "mainstay-sqlite"] },
    Crate { name: "mainstay-vault", tier: Tier::Adapter, uses: &["mainstay-ids", "mainstay-model"] },
    Crate { name: "mainstay-api", tier: Tier::Adapter, uses: &["mainstay-ids", "mainstay-model"] },
    Crate { name: "mainstay-forward", tier: Tier::Adapter, uses: &["mainstay-ids", "mainstay-model", "mainstay-control", "mainstay-kernel"] },
    Crate { name: "mainstay-gateway", tier: Tier::Driver, uses: &["mainstay-exposition", "mainstay-ids", "mainstay-model", "mainstay-control", "mainstay-kernel", "mainstay-http1", "mainstay-api"] },
    Crate { name: "mainstay-agent", tier: Tier::Driver, uses: &["mainstay-exposition", "mainstay-scrape", "mainstay-ids", "mainstay-model", "mainstay-control", "mainstay-api", "mainstay-forward", "mainstay-kernel"] },
    Crate { name: "mainstay-server", tier: Tier::Driver, uses: &["mainstay-ids", "mainstay-model", "mainstay-control", "mainstay-api", "mainstay-store", "mainstay-journal", "mainstay-vault", "mainstay-kernel"] },
    Crate { name: "mainstay-vip", tier: Tier::Driver, uses: &["mainstay-exposition", "mainstay-ids", "mainstay-model", "mainstay-vrrp", "mainstay-kernel"] },
    Crate { name: "mainstay-broker", tier: Tier::Driver, uses: &["mainstay-exposition", "mainstay-scrape", "mainstay-ids", "mainstay-amqp", "mainstay-journal", "mainstay-kernel", "mainstay-tls"] },
    Crate { name: "mainstay-prove", tier: Tier::Driver, uses: &["mainstay-ids", "mainstay-model", "mainstay-api", "mainstay-amqp"] },
    Crate { name: "mainstay", tier: Tier::Binary, uses: &["mainstay-ids", "mainstay-model", "mainstay-control", "mainstay-api", "mainstay-kernel", "mainstay-tls", "mainstay-forward", "mainstay-gateway", "mainstay-agent", "mainstay-server", "mainstay-broker", "mainstay-vip", "mainstay-prove"] },
    Crate { name: "mainstay-testkit", tier: Tier::Dev, uses: &["mainstay-ids", "mainstay-model", "mainstay-api"] },
    Crate { name: "mainstay-power-loss", tier: Tier::Dev, uses: &[] },
    Crate { name: "mainstay-sim", tier: Tier::Dev, uses: &["mainstay-ids", "mainstay-model", "mainstay-control"] },
    Crate { name: "news", tier: Tier::Dev, uses: &[] },
    Crate { name: "shop", tier: Tier::Dev, uses: &[] },
    Crate { name: "xtask", tier: Tier::Dev, uses: &["mainstay-testkit", "mainstay-prove", "mainstay-store", "mainstay-ids", "mainstay-model", "mainstay-api", "mainstay-control", "mainstay-forward"] },
];

/// Checks the whole tree.
pub(crate) fn check() -> Result<()> {
    let packages = packages(&cargo::metadata()?)?;
    let mut findings = check_arrows(&packages);
    let files = tree::text_files(tree::root())?;
    for source in tree::sources(&files) {
        check_unsafe(&source, &mut findings);
        for package in &packages {
            check_no_std(package, &source, &mut findings);
        }
    }
    tree::report("arch", findings)
}

/// A package of the workspace, as its `Cargo.toml` has it.
#[derive(Debug)]
struct Package {
    name: String,
    /// Relative to the root.
    manifest: PathBuf,
    arrows: Vec<Arrow>,
}

#[derive(Debug)]
struct Arrow {
    to: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For the crate itself or its build script.
    Shipped,
    /// For tests, benches and examples.
    Tests,
}

/// The packages of the workspace, with the arrows between them only.
fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let text = |value: &Value, key: &str| -> Result<String> {
        Ok(value[key]
            .as_str()
            .with_context(|| format!("cargo metadata lacks `{key}`"))?
            .to_owned())
    };
    let names: BTreeSet<String> = list
        .iter()
        .map(|package| text(package, "name"))
        .collect::<Result<_>>()?;
    let mut packages = Vec::new();
    for package in list {
        let manifest = PathBuf::from(text(package, "manifest_path")?);
        let mut arrows = Vec::new();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = text(dependency, "name")?;
            if names.contains(&to) {
                let tests = dependency["kind"].as_str() == Some("dev");
                arrows.push(Arrow {
                    to,
                    kind: if tests { Kind::Tests } else { Kind::Shipped },
                });
            }
        }
        let manifest = manifest
            .strip_prefix(tree::root())
            .unwrap_or(&manifest)
            .to_owned();
        packages.push(Package {
            name: text(package, "name")?,
            manifest,
            arrows,
        });
    }
    Ok(packages)
}

fn row(name: &str) -> Option<&'static Crate> {
    CRATES.iter().find(|row| row.name == name)
}

fn check_arrows(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let mut report = |what: String| {
            findings.push(Finding {
                path: package.manifest.clone(),
                line: 1,
                what,
            });
        };
        let Some(from) = row(&package.name) else {
            report(format!(
                "`{}` has no tier: add it to the table in xtask/src/arch.rs",
                package.name
            ));
            continue;
        };
        for arrow in &package.arrows {
            if let Some(what) = refuse(from, arrow) {
                report(what);
            }
        }
    }
    for row in CRATES {
        if !packages.iter().any(|package| package.name == row.name) {
            let what = format!(
                "`{}` is in the table and not in the workspace: remove its line",
                row.name
            );
            findings.push(Finding {
                path: PathBuf::from("xtask/src/arch.rs"),
                line: 1,
                what,
            });
        }
    }
    findings
}

/// Why an arrow may not be, if so.
fn refuse(from: &Crate, arrow: &Arrow) -> Option<String> {
    // Without a row, its own package is reported.
    let to = row(&arrow.to)?;
    if from.uses.contains(&to.name) || (to.tier == Tier::Dev && arrow.kind == Kind::Tests) {
        return None;
    }
    let (from_name, to_name) = (from.name, to.name);
    Some(match (from.tier, to.tier) {
        (_, Tier::Dev) => {
            format!(
                "`{to_name}` is never shipped: `{from_name}` may have it under [dev-dependencies] only"
            )
        }
        (Tier::Driver, Tier::Driver) => {
            format!(
                "drivers never know each other: let the binary give `{from_name}` what it needs of `{to_name}`"
            )
        }
        (_, _) => format!(
            "`{from_name}` ({:?}) may not depend on `{to_name}` ({:?}): pass a value in, or decide the arrow in xtask/src/arch.rs",
            from.tier, to.tier
        ),
    })
}

/// Words and core must do without the standard library: then the compiler keeps input and output out.
fn check_no_std(package: &Package, source: &Source, findings: &mut Vec<Finding>) {
    let tier = row(&package.name).map(|row| row.tier);
    let root = package.manifest.with_file_name("src").join("lib.rs");
    if !matches!(tier, Some(Tier::Words | Tier::Core)) || source.path() != root {
        return;
    }
    let declared = source.words("no_std").into_iter().any(|at| {
        let before: String = source.code()[..at]
            .iter()
            .filter(|c| !c.is_whitespace())
            .collect();
        before.ends_with("#![") && source.ahead(at, 7) == "no_std]"
    });
    if !declared {
        let what = "words and core decide without input or output: declare `#![no_std]` (and `extern crate alloc`)";
        findings.push(Finding {
            path: root,
            line: 1,
            what: what.to_owned(),
        });
    }
}

/// Where `unsafe` may be, each with its reason: the functions of Linux, and, never shipped, those
/// that SQLite calls (`docs/adr/0012-sqlite-behind-a-store-trait.md`).
const UNSAFE_PLACES: &[&str] = &["crates/kernel", "crates/power-loss/src/vfs.rs"];

fn check_unsafe(source: &Source, findings: &mut Vec<Finding>) {
    let allowed = UNSAFE_PLACES
        .iter()
        .any(|place| source.path().starts_with(place));
    for at in source.words("unsafe") {
        let line = source.line_at(at);
        let after = source.ahead(at + "unsafe".len(), 40);
        // A function with C's form promises nothing: like every unsafe function it asks its callers.
        let foreign = after.starts_with("extern")
            && !after
                .split('{')
                .next()
                .is_some_and(|head| head.contains("fn"));
        let block = after.starts_with('{') || after.starts_with("impl") || foreign;
        let what = if !allowed {
            "`unsafe` outside crates/kernel: write a safe function there, with a test, and call it"
        } else if block && !has_safety_sentence(source, line) {
            "`unsafe` without its reason: say in a `// SAFETY:` line above why this is sound"
        } else {
            continue;
        };
        findings.push(Finding {
            path: source.path().to_owned(),
            line,
            what: what.to_owned(),
        });
    }
}

/// Whether one of the comment lines directly above has the reason.
fn has_safety_sentence(source: &Source, line: usize) -> bool {
    let above = (1..line)
        .rev()
        .map(|line| (source.comment_line(line), source.code_line(line)));
    let mut comments = above.take_while(|(comment, code)| {
        let code = code.trim();
        code.starts_with("#[") || (code.is_empty() && !comment.trim().is_empty())
    });
    comments.any(|(comment, _)| comment.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn package(name: &str, arrows: &[(&str, Kind)]) -> Package {
        let arrow = |(to, kind): &(&str, Kind)| Arrow {
            to: (*to).to_owned(),
            kind: *kind,
        };
        Package {
            name: name.to_owned(),
            manifest: PathBuf::from("crates/x/Cargo.toml"),
            arrows: arrows.iter().map(arrow).collect(),
        }
    }

    fn refusal(from: &str, to: &str, kind: Kind) -> Option<String> {
        refuse(
            row(from).unwrap(),
            &Arrow {
                to: to.to_owned(),
                kind,
            },
        )
    }

    fn unsafe_findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check_unsafe(&Source::parse(Path::new(path), text), &mut findings);
        findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn every_arrow_of_the_table_points_down() {
        for from in CRATES {
            for to in from.uses {
                let to = row(to).unwrap_or_else(|| panic!("{to} has no row"));
                let words = from.tier == Tier::Words && to.tier == Tier::Words;
                let below = from.tier == Tier::Adapter
                    && ["mainstay-journal", "mainstay-kernel", "mainstay-sqlite"]
                        .contains(&to.name);
                let dev = from.tier == Tier::Dev && from.name != to.name;
                assert!(
                    to.tier < from.tier || words || below || dev,
                    "{} -> {}",
                    from.name,
                    to.name
                );
            }
        }
    }

    #[test]
    fn drivers_do_not_know_each_other_even_in_tests() {
        for kind in [Kind::Shipped, Kind::Tests] {
            let refused = refusal("mainstay-gateway", "mainstay-agent", kind).unwrap();
            assert!(refused.contains("never know each other"), "{refused}");
        }
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_refused() {
        assert!(refusal("mainstay-control", "mainstay-store", Kind::Shipped).is_some());
        assert!(refusal("mainstay-gateway", "mainstay-store", Kind::Shipped).is_some());
        assert_eq!(
            refusal("mainstay-control", "mainstay-model", Kind::Shipped),
            None
        );
    }

    #[test]
    fn what_is_never_shipped_is_for_tests_and_xtask() {
        assert_eq!(
            refusal("mainstay-agent", "mainstay-testkit", Kind::Tests),
            None
        );
        assert!(refusal("mainstay-agent", "mainstay-testkit", Kind::Shipped).is_some());
        assert_eq!(refusal("xtask", "mainstay-testkit", Kind::Shipped), None);
    }

    #[test]
    fn table_and_workspace_name_the_same_crates() {
        let mut packages: Vec<Package> = CRATES.iter().map(|row| package(row.name, &[])).collect();
        assert_eq!(check_arrows(&packages), []);
        packages[0].name = "mainstay-new".to_owned();
        let found = check_arrows(&packages);
        assert!(
            found[0].what.contains("`mainstay-new` has no tier"),
            "{found:?}"
        );
        assert!(found[1].what.contains("not in the workspace"), "{found:?}");
    }

    #[test]
    fn words_and_core_declare_no_std_in_code() {
        let control = Package {
            manifest: PathBuf::from("crates/control/Cargo.toml"),
            ..package("mainstay-control", &[])
        };
        let found = |text: &str| {
            let mut findings = Vec::new();
            let source = Source::parse(Path::new("crates/control/src/lib.rs"), text);
            check_no_std(&control, &source, &mut findings);
            findings.len()
        };
        assert_eq!(found("//! Decides.\n#![no_std]\n"), 0);
        assert_eq!(found("//! Decides.\n// #![no_std]\n"), 1);
        assert_eq!(found("//! Decides.\n#![cfg_attr(not(test), no_std)]\n"), 1);
    }

    #[test]
    fn unsafe_code_is_in_kernel_alone() {
        assert_eq!(
            unsafe_findings("crates/agent/src/a.rs", "fn f() { unsafe { g() } }").len(),
            1
        );
        let words = "#![forbid(unsafe_code)] // unsafe\nfn f() { g(\"unsafe\") }";
        assert_eq!(
            unsafe_findings("crates/agent/src/a.rs", words),
            Vec::<String>::new()
        );
    }

    #[test]
    fn of_what_is_never_shipped_one_file_alone_may_have_unsafe_code_with_its_reason() {
        let code = "// SAFETY: plain.\nunsafe impl Send for A {}\n";
        let found = |path: &str, code: &str| unsafe_findings(path, code).len();
        assert_eq!(found("crates/power-loss/src/vfs.rs", code), 0);
        assert_eq!(found("crates/power-loss/src/vfs.rs", "unsafe { g() }"), 1);
        assert_eq!(found("crates/power-loss/src/lib.rs", code), 1);
        assert_eq!(found("crates/testkit/src/lib.rs", code), 1);
    }

    #[test]
    fn unsafe_code_in_kernel_says_why_it_is_sound() {
        let kernel = |text: &str| unsafe_findings("crates/kernel/src/a.rs", text).len();
        assert_eq!(kernel("fn f() {\n    unsafe { g() }\n}\n"), 1);
        assert_eq!(
            kernel("// SAFETY: too far away\n\nfn f() {\n    unsafe { g() }\n}\n"),
            1
        );
        assert_eq!(
            kernel("fn f() {\n    // SAFETY: g takes\n    // nothing.\n    unsafe { g() }\n}\n"),
            0
        );
        assert_eq!(
            kernel("// SAFETY: it is plain.\n#[allow(x)]\nunsafe impl Send for A {}\n"),
            0
        );
        assert_eq!(
            kernel("/// # Safety\n/// The caller knows.\npub unsafe fn f() {}\n"),
            0
        );
        assert_eq!(kernel("unsafe extern \"C\" fn f() {}\n"), 0);
        assert_eq!(kernel("unsafe extern \"C\" { fn f(); }\n"), 1);
    }
}
