//! One proxy that runs: ours with its control centre and agent, or a HAProxy, each confined to the first processor.

use crate::bench::{
    dev::{self, Dev, Part},
    haproxy::{Haproxy, Reload, Setup},
    load::{Flood, Reuse, Saturated},
    machine::{self, Cpus, pin},
};
use anyhow::{Context as _, Result};
use mainstay_testkit::TempDir;
use rustix::process::Pid;
use std::{cell::Cell, fs, net::SocketAddr, path::Path, time::Duration};

pub(super) const OURS: &str = "mainstay";

const WARM_UP: Duration = Duration::from_secs(1);

/// What a warm-up sends: what most of the measurements send, too.
pub(super) const KEPT: Flood = Flood {
    connections: 64,
    path: "/",
    reuse: Reuse::Kept,
};

/// Whether access log, request ids and retries are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Features {
    On,
    Off,
}

pub(super) struct Side {
    pub(super) name: &'static str,
    proxy: Proxy,
    pid: Pid,
    /// What works for the proxy and is not counted as it: control centre and agent. HAProxy checks its instances itself.
    beside: Vec<Pid>,
    /// Requests that it has served here.
    requests: Cell<u64>,
}

enum Proxy {
    Ours(Dev),
    Theirs(Haproxy),
}

impl Side {
    pub(super) async fn ours(mainstay: &Path, features: Features) -> Result<Self> {
        let options: &[&str] = match features {
            Features::On => &["--access-log", "on"],
            Features::Off => &[
                "--access-log",
                "off",
                "--unsafe-gateway-seams",
                "retries=off,request-ids=off",
            ],
        };
        let file = dev::service_file(3, Duration::ZERO, 1)?;
        let dev = Dev::start(mainstay, &file, &[&["--workers", "1"], options].concat())?;
        dev.wait_steady().await;
        let pid = dev.process(Part::Gateway)?;
        let beside = vec![dev.process(Part::Server)?, dev.process(Part::Agent)?];
        Self::begin(OURS, Proxy::Ours(dev), pid, beside)
    }

    pub(super) fn theirs(name: &'static str, config: &'static str) -> Result<Self> {
        let haproxy = Haproxy::start(Setup {
            config,
            threads: 1,
            delay: Duration::ZERO,
            reload: Reload::Never,
        })?;
        let pid = haproxy.pid();
        Self::begin(name, Proxy::Theirs(haproxy), pid, Vec::new())
    }

    fn begin(name: &'static str, proxy: Proxy, pid: Pid, beside: Vec<Pid>) -> Result<Self> {
        pin(pid, Cpus::First)?;
        let requests = Cell::new(0);
        Ok(Self {
            name,
            proxy,
            pid,
            beside,
            requests,
        })
    }

    pub(super) async fn warm_up(&self, dir: &TempDir) -> Result<()> {
        self.flood(dir, KEPT, WARM_UP).await.map(drop)
    }

    /// Lets wrk ask as often as it can.
    pub(super) async fn flood(
        &self,
        dir: &TempDir,
        flood: Flood,
        duration: Duration,
    ) -> Result<Saturated> {
        let seen = flood
            .send(dir, self.entry(), duration)
            .await
            .with_context(|| format!("the load on {} failed", self.name))?;
        self.count(seen.requests);
        Ok(seen)
    }

    pub(super) fn count(&self, requests: u64) {
        self.requests.set(self.requests.get() + requests);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub(super) fn entry(&self) -> SocketAddr {
        match &self.proxy {
            Proxy::Ours(dev) => dev.entry(),
            Proxy::Theirs(haproxy) => haproxy.entry(),
        }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn cpu(&self) -> Result<Duration> {
        machine::cpu_time(self.pid)
    }

    pub(super) fn cpu_beside(&self) -> Result<Duration> {
        self.beside.iter().map(|pid| machine::cpu_time(*pid)).sum()
    }

    pub(super) fn pss_kib(&self) -> Result<u64> {
        machine::pss_kib(self.pid)
    }

    /// Lines of its access log; of ours only whether there are any.
    pub(super) fn log_lines(&self) -> Result<u64> {
        match &self.proxy {
            Proxy::Ours(dev) => {
                let path = dev.state().join("logs/access.log");
                let log = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?;
                Ok(u64::from(log.len() > 0))
            }
            Proxy::Theirs(haproxy) => Ok(haproxy.log_lines()),
        }
    }
}
