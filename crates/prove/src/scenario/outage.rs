//! Instances that neither answer nor go away: frozen, or cut off from the network.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Trouble;
use super::signal::Victim;
use super::stage::{Chosen, PAUSE, Stage, whole};
use crate::load::Strike;

/// How long an instance is away: longer than a person waits, shorter than the time after which a
/// service that answers no probe is started again.
const OUTAGE: Duration = Duration::from_secs(3);

/// Until when a gateway need not have noticed. An unsafe request that is sent there later and lost
/// is no victim of the outage.
const NOTICED: Duration = Duration::from_millis(300);

/// The one table of nftables that is ever touched.
const TABLE: &str = "mainstay_prove";

/// How long the kernel may take to change its tables.
const NFT_DEADLINE: Duration = Duration::from_secs(10);

impl Stage {
    pub(super) async fn freeze(&mut self) -> Result<(), Trouble> {
        let mut round = 0;
        while round == 0 || self.has_time() {
            let Some(chosen) = self.choose(round).await? else {
                continue;
            };
            let Chosen { instance, pid, .. } = &chosen;
            let fault = self.begin(format!("SIGSTOP of {instance} (process {pid}) for 3 s"));
            let begin = Instant::now();
            let frozen = Frozen::begin(&chosen.victim, *pid)?;
            self.pause(OUTAGE).await?;
            drop(frozen);
            self.after_outage(&chosen, fault, begin).await?;
            round += 1;
        }
        Ok(())
    }

    pub(super) async fn cut_off(&mut self) -> Result<(), Trouble> {
        let mut round = 0;
        while round == 0 || self.has_time() {
            let Some(chosen) = self.choose(round).await? else {
                continue;
            };
            let instance = &chosen.instance;
            let Some(address) = chosen.address else {
                let why = format!("{instance} has no address");
                return Err(Trouble::CannotBreak(why));
            };
            let fault = self.begin(format!(
                "packets to and from {instance} ({address}) dropped for 3 s by the table \
                 `{TABLE}` of nftables"
            ));
            let begin = Instant::now();
            let cut = Cut::begin(address).await?;
            let paused = self.pause(OUTAGE).await;
            let dropped = cut.end().await?;
            paused?;
            if dropped == 0 {
                let why = format!(
                    "not one packet to or from {address} passed this machine's nftables; is \
                     Mainstay in another network namespace?"
                );
                return Err(Trouble::CannotBreak(why));
            }
            self.after_outage(&chosen, fault, begin).await?;
            round += 1;
        }
        Ok(())
    }

    async fn after_outage(
        &mut self,
        chosen: &Chosen,
        fault: usize,
        begin: Instant,
    ) -> Result<(), Trouble> {
        let begin = begin.saturating_duration_since(self.started);
        self.strikes.push(Strike {
            instance: chosen.instance.to_string(),
            begin,
            end: begin + NOTICED,
        });
        let service = &chosen.service;
        let what = format!("{service} is not whole again");
        self.wait(&what, |snapshot| whole(snapshot, service))
            .await?;
        self.whole_again(fault);
        self.pause(PAUSE).await
    }
}

/// A process that is stopped while this lives.
struct Frozen<'a>(&'a Victim);

impl<'a> Frozen<'a> {
    fn begin(victim: &'a Victim, pid: u32) -> Result<Self, Trouble> {
        let refused = |error| Trouble::CannotBreak(format!("cannot stop process {pid}: {error}"));
        victim.signal(Signal::STOP).map_err(refused)?;
        Ok(Self(victim))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // It may have been ended meanwhile: then there is nothing to let go on.
        let _ = self.0.signal(Signal::CONT);
    }
}

/// An address that is cut off. The kernel itself lifts it after the outage, so that nothing stays
/// cut off by a proof that was killed; what such a one leaves is an empty table, which the next
/// one removes.
struct Cut(());

impl Cut {
    async fn begin(address: SocketAddr) -> Result<Self, Trouble> {
        if !rustix::process::geteuid().is_root() {
            let why = "packets can be dropped by root only: run `mainstay prove` as root, or leave \
                       `blackhole` out";
            return Err(Trouble::CannotBreak(why.to_owned()));
        }
        nft(&ruleset(address)?).await?;
        Ok(Self(()))
    }

    /// Removes the table; gives how many packets were dropped.
    async fn end(self) -> Result<u64, Trouble> {
        let listed = nft(&format!("list table inet {TABLE}\n")).await;
        nft(&format!("delete table inet {TABLE}\n")).await?;
        Ok(packets(&listed?))
    }
}

/// Adding before deleting makes it right whether a table was left there or not.
///
/// At the input, since a sender is told of what is dropped at the output.
fn ruleset(address: SocketAddr) -> Result<String, Trouble> {
    let SocketAddr::V4(v4) = address else {
        let why = format!("{address} is no IPv4 address");
        return Err(Trouble::CannotBreak(why));
    };
    let (ip, port, seconds) = (v4.ip(), v4.port(), OUTAGE.as_secs());
    Ok(format!(
        "add table inet {TABLE}\n\
         delete table inet {TABLE}\n\
         table inet {TABLE} {{\n\
           set struck {{\n\
             type ipv4_addr . inet_service\n\
             flags timeout\n\
             elements = {{ {ip} . {port} timeout {seconds}s }}\n\
           }}\n\
           chain hole {{\n\
             type filter hook input priority -300\n\
             ip daddr . tcp dport @struck counter drop\n\
             ip saddr . tcp sport @struck counter drop\n\
           }}\n\
         }}\n"
    ))
}

/// The sum of all counters in what nft lists.
fn packets(listed: &str) -> u64 {
    let mut words = listed.split_whitespace();
    let mut sum = 0;
    while words.any(|word| word == "packets") {
        sum += words
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0);
    }
    sum
}

pub(super) async fn nft(rules: &str) -> Result<String, Trouble> {
    nft_with(&[], rules).await
}

pub(super) async fn nft_with(options: &[&str], rules: &str) -> Result<String, Trouble> {
    let refused = |why: &dyn std::fmt::Display| {
        Trouble::CannotBreak(format!(
            "cannot change the kernel's packet filter by `nft`: {why}"
        ))
    };
    let exchange = async {
        let mut nft = Command::new("nft");
        nft.args(options).args(["--file", "-"]).kill_on_drop(true);
        nft.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = nft.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(NFT_DEADLINE, exchange)
        .await
        .map_err(|_| refused(&"it does not end"))?
        .map_err(|error| refused(&error))?;
    if !output.status.success() {
        return Err(refused(&String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn system_a_frozen_process_is_let_go_whatever_happens() {
        let dir = mainstay_testkit::TempDir::new("frozen");
        let mut python = std::process::Command::new(mainstay_testkit::program("python3"));
        python.args(["-c", "import signal; signal.pause()"]);
        let process = mainstay_testkit::Spawned::start(&dir, "frozen", &mut python);
        let pid = u32::try_from(process.pid().as_raw_nonzero().get()).unwrap();
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')')
                .next()
                .unwrap()
                .trim_start()
                .starts_with('T')
        };
        let wait = |stopped: bool| {
            mainstay_testkit::wait_until(NFT_DEADLINE, "the process's state", || {
                if is_stopped() == stopped {
                    Ok(())
                } else {
                    Err(format!("stopped: {}", !stopped))
                }
            });
        };
        let victim = Victim::hold(pid).unwrap();
        let frozen = Frozen::begin(&victim, pid).unwrap();
        wait(true);
        drop(frozen);
        wait(false);
    }

    #[test]
    fn the_rules_name_one_address_and_end_by_themselves() {
        let rules = ruleset("127.0.0.1:4321".parse().unwrap()).unwrap();
        assert!(rules.contains("{ 127.0.0.1 . 4321 timeout 3s }"), "{rules}");
        assert!(!rules.contains("flush"), "{rules}");
        assert!(ruleset("[::1]:80".parse().unwrap()).is_err());
    }

    #[test]
    fn all_counters_are_added_up() {
        let listed = "ip daddr . tcp dport @struck counter packets 3 bytes 180 drop\n\
                      ip saddr . tcp sport @struck counter packets 4 bytes 240 drop";
        assert_eq!(packets(listed), 7);
        assert_eq!(packets(""), 0);
    }
}
