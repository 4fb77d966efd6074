//! Planted bugs: each is a text of `control` that is replaced in a copy, which then must break a promise.
//!
//! A simulation that catches none of them proves nothing. What is caught by a panic counts only where the panic is an
//! invariant of `control` itself.

use crate::{cargo, tree};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Instant,
};

/// Where mutants stand, what they change, and which simulation is to catch them.
struct List {
    path: &'static str,
    mutated: &'static str,
    simulation: &'static [&'static str],
}

const LISTS: [List; 2] = [
    List {
        path: "crates/sim/mutants/control.toml",
        mutated: "crates/control/src/cluster",
        simulation: &[],
    },
    List {
        path: "crates/sim/mutants/balance.toml",
        mutated: "crates/control/src/balance",
        simulation: &["--entry"],
    },
];
/// What is copied: all that the simulation is built from.
const CRATES: [&str; 4] = ["ids", "model", "control", "sim"];
/// A bug that so many seeds do not show is one that the simulation does not catch.
const SEEDS: &str = "600";

/// A planted bug.
#[derive(Debug, Clone)]
struct Mutant {
    name: String,
    sentence: String,
    file: PathBuf,
    text: String,
    replacement: String,
    simulation: &'static [&'static str],
}

/// What became of it.
#[derive(Debug)]
enum Verdict {
    Caught {
        promise: String,
        seed: u64,
        what: String,
    },
    Survived,
    /// It proves nothing: it does not compile, or the simulation itself panicked.
    Void(String),
}

pub(super) fn run(only: Option<&str>, list: bool, jobs: usize) -> Result<()> {
    let mutants = read(only)?;
    ensure!(!mutants.is_empty(), "no mutant has that in its name");
    if list {
        for mutant in &mutants {
            println!("{:30} {}", mutant.name, mutant.sentence);
        }
        return Ok(());
    }
    let begin = Instant::now();
    let results = judge_all(&mutants, jobs.clamp(1, mutants.len()))?;
    let mut open = Vec::new();
    for (mutant, verdict) in mutants.iter().zip(&results) {
        println!("{}", line(mutant, verdict));
        if !matches!(verdict, Verdict::Caught { .. }) {
            open.push(mutant.name.as_str());
        }
    }
    let took = begin.elapsed().as_secs();
    let caught = mutants.len() - open.len();
    println!("{caught} of {} caught in {took} s", mutants.len());
    let result = json!({
        "bench": "mutants",
        "rounds": mutants.len(),
        "values": { "mutants": mutants.len(), "caught": caught, "took_s": took },
        "mutants": mutants.iter().zip(&results).map(record).collect::<Vec<_>>(),
        "ok": open.is_empty(),
    });
    if only.is_none() {
        super::keep("mutants", &result)?;
    }
    if !open.is_empty() {
        bail!("not caught: {}", open.join(", "));
    }
    Ok(())
}

fn line(mutant: &Mutant, verdict: &Verdict) -> String {
    let outcome = match verdict {
        Verdict::Caught { promise, seed, .. } => format!("caught by {promise}, seed {seed}"),
        Verdict::Survived => "SURVIVED".to_owned(),
        Verdict::Void(why) => format!("VOID: {why}"),
    };
    format!("{:30} {outcome:44} {}", mutant.name, mutant.sentence)
}

fn record((mutant, verdict): (&Mutant, &Verdict)) -> Value {
    let Mutant { name, sentence, .. } = mutant;
    match verdict {
        Verdict::Caught {
            promise,
            seed,
            what,
        } => json!({
            "name": name, "sentence": sentence, "caught_by": promise, "seed": seed, "what": what,
        }),
        Verdict::Survived => json!({ "name": name, "sentence": sentence, "caught_by": null }),
        Verdict::Void(why) => json!({ "name": name, "sentence": sentence, "void": why }),
    }
}

/// Reads the mutants; one whose text does not stand there exactly once is stale.
fn read(only: Option<&str>) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for list in LISTS {
        read_list(&list, &mut mutants)?;
    }
    mutants.retain(|mutant| only.is_none_or(|only| mutant.name.contains(only)));
    Ok(mutants)
}

fn read_list(list: &List, mutants: &mut Vec<Mutant>) -> Result<()> {
    let path = tree::root().join(list.path);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = text.parse().with_context(|| format!("in {}", list.path))?;
    for (name, value) in table {
        let field = |key: &str| {
            let found = value.get(key).and_then(toml::Value::as_str);
            found.with_context(|| format!("mutant `{name}` lacks `{key}`"))
        };
        let mutant = Mutant {
            sentence: field("sentence")?.to_owned(),
            file: Path::new(list.mutated).join(field("file")?),
            simulation: list.simulation,
            text: field("text")?.to_owned(),
            replacement: field("replacement")?.to_owned(),
            name,
        };
        let source = fs::read_to_string(tree::root().join(&mutant.file))?;
        let places = source.matches(&mutant.text).count();
        ensure!(
            places == 1,
            "stale mutant `{}`: its text stands {places} times in {}; write the place anew in {}",
            mutant.name,
            mutant.file.display(),
            list.path
        );
        mutants.push(mutant);
    }
    Ok(())
}

fn judge_all(mutants: &[Mutant], jobs: usize) -> Result<Vec<Verdict>> {
    let next = Mutex::new(mutants.iter().enumerate());
    let verdicts = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let jobs: Vec<_> = (0..jobs)
            .map(|job| {
                let (next, verdicts) = (&next, &verdicts);
                scope.spawn(move || -> Result<()> {
                    let place = Workplace::prepare(job)?;
                    loop {
                        let taken = next.lock().expect("no job panics with it").next();
                        let Some((at, mutant)) = taken else {
                            return Ok(());
                        };
                        let verdict = place.judge(mutant)?;
                        eprintln!("{}", line(mutant, &verdict));
                        let mut all = verdicts.lock().expect("no job panics with it");
                        all.push((at, verdict));
                    }
                })
            })
            .collect();
        jobs.into_iter()
            .try_for_each(|job| job.join().expect("a job returns its errors"))
    })?;
    let mut verdicts = verdicts.into_inner().expect("no job panics with it");
    verdicts.sort_by_key(|(at, _)| *at);
    Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
}

/// A copy of the crates, with a target directory of its own.
struct Workplace {
    root: PathBuf,
}

impl Workplace {
    fn prepare(job: usize) -> Result<Self> {
        let root = cargo::target_dir()?.join(format!("mutants/{job}"));
        let crates = root.join("crates");
        if crates.exists() {
            fs::remove_dir_all(&crates)
                .with_context(|| format!("cannot empty {}", crates.display()))?;
        }
        for name in CRATES {
            copy(&tree::root().join("crates").join(name), &crates.join(name))?;
        }
        let manifest = fs::read_to_string(tree::root().join("Cargo.toml"))?;
        let members: Vec<&str> = manifest
            .lines()
            .map(|line| {
                if line.starts_with("members") {
                    "members = [\"crates/*\"]"
                } else {
                    line
                }
            })
            .collect();
        fs::write(root.join("Cargo.toml"), members.join("\n"))?;
        fs::copy(tree::root().join("Cargo.lock"), root.join("Cargo.lock"))?;
        Ok(Self { root })
    }

    fn judge(&self, mutant: &Mutant) -> Result<Verdict> {
        let path = self.root.join(&mutant.file);
        let source = fs::read_to_string(&path)?;
        fs::write(&path, source.replace(&mutant.text, &mutant.replacement))?;
        let verdict = self.build_and_run(mutant.simulation);
        fs::write(&path, source)?;
        verdict
    }

    fn build_and_run(&self, which: &[&str]) -> Result<Verdict> {
        let target = self.root.join("target");
        let mut build = cargo::command();
        build
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &target);
        build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
        build.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // The planted bugs make code that is never reached.
        build.env("RUSTFLAGS", "-Awarnings");
        build.args(["build", "--offline", "--quiet", "--package", "mainstay-sim"]);
        let output = build.output().context("cannot start cargo")?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let error = text.lines().find(|line| line.starts_with("error"));
            let error = error.unwrap_or("it does not build");
            return Ok(Verdict::Void(error.to_owned()));
        }
        let mut simulation = Command::new(target.join("debug/mainstay-sim"));
        simulation.args(["--json", "--threads", "1", "--seeds", SEEDS]);
        simulation.args(which);
        let output = simulation.output().context("cannot start the simulation")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let result: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .context("the simulation's last line is no JSON")?;
        Ok(verdict(&result["failure"]))
    }
}

fn verdict(failure: &Value) -> Verdict {
    let text = |key: &str| failure[key].as_str().unwrap_or_default().to_owned();
    if failure.is_null() {
        return Verdict::Survived;
    }
    let (promise, what) = (text("promise"), text("what"));
    // A panic counts as the machine's own check only where it stands in the machine.
    if promise == "own-invariant" && !what.contains("crates/control/src") {
        return Verdict::Void(format!("the simulation panicked: {what}"));
    }
    Verdict::Caught {
        promise,
        seed: failure["seed"].as_u64().unwrap_or_default(),
        what: what.chars().take(300).collect(),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mutant_is_stale_and_each_says_what_it_breaks() {
        let mutants = read(None).unwrap();
        assert!(mutants.len() >= 25, "{}", mutants.len());
        for mutant in mutants {
            assert!(mutant.sentence.ends_with('.'), "{mutant:?}");
            assert_ne!(mutant.text, mutant.replacement, "{mutant:?}");
        }
    }

    #[test]
    fn only_a_broken_promise_or_an_invariant_of_the_machine_catches_a_mutant() {
        let failed =
            |promise, what| verdict(&json!({ "promise": promise, "what": what, "seed": 3 }));
        assert!(matches!(verdict(&Value::Null), Verdict::Survived));
        assert!(matches!(
            failed("ends", "no rest"),
            Verdict::Caught { seed: 3, .. }
        ));
        let of_machine = failed("own-invariant", "at crates/control/src/cluster/x.rs:1:1");
        assert!(matches!(of_machine, Verdict::Caught { .. }));
        let of_harness = failed("own-invariant", "at crates/sim/src/world.rs:1:1");
        assert!(matches!(of_harness, Verdict::Void(_)));
    }
}
