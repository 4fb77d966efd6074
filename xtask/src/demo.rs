//! `make demo`: builds the shop, keeps it available with `mainstay dev`, and proves it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The address that people expect; another is taken when it is in use.
const ENTRY: &str = "127.0.0.1:8080";

/// How long the shop may take to be ready: three small programs start in less than a second each.
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// How long the shop may take to stop: its drain time, its grace, and some more.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Arguments {
    /// Exit with the verdict instead of keeping the shop running
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    // The terminal sends Ctrl-C to `mainstay dev` and to `mainstay prove` as well, which then come
    // to their ends; we wait for them and tell how it was.
    ctrlc::set_handler(|| {}).context("cannot take Ctrl-C over")?;
    headline("building mainstay and the shop (a few minutes the first time)");
    build()?;
    headline("starting the shop: orders calls payments and inventory, each in several instances");
    let mut shop = Shop::start()?;
    shop.wait_until_ready()?;
    headline("proving it: instances are killed, stopped, replaced, added and removed under load");
    let verdict = shop.prove()?;
    if !arguments.once {
        shop.tell_what_to_try(verdict);
        shop.wait_for_the_end()?;
    }
    headline("stopping the shop");
    shop.stop()?;
    if !verdict.success() {
        bail!("the shop did not stay available; the verdict above says what clients saw");
    }
    println!("the shop stayed available: that is what Mainstay is for");
    Ok(())
}

fn headline(text: &str) {
    println!("\n== {text}");
}

fn build() -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "mainstay",
            "--package",
            "shop",
        ])
        .status()
        .context("cannot start cargo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("the build failed")
    }
}

/// The running shop. Dropping it stops what it started.
struct Shop {
    mainstay: PathBuf,
    state: PathBuf,
    /// Where clients enter.
    entry: String,
    dev: Child,
    output: Option<JoinHandle<()>>,
}

impl Shop {
    fn start() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has a parent")?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
        let programs = target.join("release");
        let mainstay = programs.join("mainstay");
        let state = target.join("demo");
        let file = mainstay_testkit::service_file_in_reach(
            &root.join("examples/shop/shop.toml"),
            &mainstay,
            &target.join("demo.toml"),
        )
        .context("cannot read the shop's service file")?;
        let entry = if TcpListener::bind(ENTRY).is_ok() {
            ENTRY
        } else {
            "127.0.0.1:0"
        };
        let mut dev = Command::new(&mainstay)
            .arg("dev")
            .arg(file)
            .args(["--entry", entry, "--api", "127.0.0.1:0", "--state"])
            .arg(&state)
            .env("SHOP_BIN", &programs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", mainstay.display()))?;
        let output = dev.stdout.take().context("its output was asked for")?;
        let log = File::create(target.join("demo.log")).context("cannot create demo.log")?;
        let output = Some(std::thread::spawn(move || copy_lines(output, log)));
        Ok(Self {
            mainstay,
            state,
            entry: entry.to_owned(),
            dev,
            output,
        })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.mainstay);
        command.arg(name).arg("--state").arg(&self.state);
        command
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Some(entry) = self.entry_when_ready()? {
                println!("clients enter at http://{entry}");
                self.entry = entry;
                return Ok(());
            }
            if let Some(ended) = self.dev.try_wait().context("cannot ask after mainstay")? {
                bail!("mainstay ended before the shop was ready: {ended}");
            }
            if began.elapsed() > READY_DEADLINE {
                bail!("the shop was not ready within {READY_DEADLINE:?}");
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Where clients enter, once there are services and all is as wanted: then `mainstay status`
    /// ends with 0.
    fn entry_when_ready(&self) -> anyhow::Result<Option<String>> {
        let mut status = self.command("status");
        let asked = status.arg("--json").stderr(Stdio::null()).output();
        let asked = asked.context("cannot ask for the status")?;
        let seen: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        let services = seen["services"].as_array().map_or(0, Vec::len);
        let entry = seen["entry"][0].as_str().filter(|_| services > 0);
        Ok(entry.filter(|_| asked.status.success()).map(str::to_owned))
    }

    /// What is usual, and the upgrade of the gateway, which takes a few seconds more.
    fn prove(&self) -> anyhow::Result<ExitStatus> {
        self.command("prove")
            .args([
                "--scenario",
                "kill,stop,rollout,rollout-bad,scale,upgrade",
                "--request",
                "9 GET /orders/{n}",
                "--request",
                "1 POST /orders {}",
            ])
            .status()
            .context("cannot start the proof")
    }

    fn tell_what_to_try(&self, verdict: ExitStatus) {
        let state = self.state.display();
        let mainstay = self.mainstay.display();
        let held = if verdict.success() {
            "held"
        } else {
            "did NOT hold"
        };
        println!("\nThe claim {held}. The shop keeps running; Ctrl-C stops it. To try:");
        println!("  {mainstay} status --state {state}");
        println!("  {mainstay} ps --state {state}          # kill a PID of it: kill -9 PID");
        println!("  {mainstay} events -f --state {state}   # what is decided, and why");
        println!("  {mainstay} scale orders 5 --state {state}");
        println!("  curl -i http://{}/orders/1", self.entry);
    }

    /// Until Ctrl-C, which the terminal sends to `mainstay dev` as well as to us, or its own end.
    fn wait_for_the_end(&mut self) -> anyhow::Result<()> {
        self.dev
            .wait()
            .map(drop)
            .context("cannot wait for mainstay")
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        if let Some(output) = self.output.take() {
            output.join().ok();
        }
        Ok(())
    }

    fn terminate(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut asked = false;
        while self
            .dev
            .try_wait()
            .context("cannot ask after mainstay")?
            .is_none()
        {
            if !asked {
                let pid = self.dev.id().to_string();
                Command::new("kill")
                    .args(["-TERM", &pid])
                    .status()
                    .context("cannot start kill")?;
                asked = true;
            }
            if began.elapsed() > STOP_DEADLINE {
                self.dev.kill().context("cannot end mainstay")?;
                bail!("mainstay did not stop within {} s", STOP_DEADLINE.as_secs());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // After `stop` there is nothing left to end; on an early error this is the best that can be done.
        self.terminate().ok();
    }
}

/// What `mainstay dev` says goes to the terminal, marked as its own, and to a file.
fn copy_lines(output: impl std::io::Read, mut log: File) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        println!("  dev | {line}");
        // The terminal is what counts; a full disk does not end the demonstration.
        std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()).ok();
    }
}
