//! Who comes in. Passwords are hashed slowly, on another thread, one at a time and not too often; who was right once is
//! known again quickly.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

use mainstay_amqp::{Credentials, Entry};
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

use crate::accounts::{GUEST, PasswordError, PasswordHash};
use crate::house::House;
use crate::limits::{
    HASH_EVERY, HASHES_WAITING_MAX, HASHES_WAITING_PER_PEER_MAX, REFUSALS_TOLD_EVERY,
};

/// Knows passwords that were right.
#[derive(Debug)]
pub(crate) struct Doorman {
    /// Never leaves this process.
    key: hmac::Key,
    /// By user: the hash that was confirmed, and under our key the password that it is of.
    known: RefCell<HashMap<String, (PasswordHash, hmac::Tag)>>,
    /// What is being compared: all who say the same wait for one answer.
    under_way: RefCell<HashMap<Claim, UnderWay>>,
    /// Who waits, by address.
    waiting: RefCell<HashMap<IpAddr, usize>>,
    /// When the next slow hash may begin.
    next: Mutex<Instant>,
    /// When a refusal may be told again, and how many were not.
    told: Cell<Instant>,
    untold: Cell<u64>,
    /// What unknown users are compared with, so that they cannot be told by the time it takes.
    nobody: PasswordHash,
}

/// A user, and under our key the password that somebody says is hers.
type Claim = (String, Vec<u8>);

/// With what it is compared, and what came of it.
#[derive(Debug, Clone)]
struct UnderWay {
    hash: Option<PasswordHash>,
    verdict: watch::Receiver<Option<bool>>,
}

impl Doorman {
    pub(crate) fn new() -> Result<Self, PasswordError> {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random);
        Ok(Self {
            key: key.map_err(|_| PasswordError::NoRandomness)?,
            known: RefCell::default(),
            under_way: RefCell::default(),
            waiting: RefCell::default(),
            next: Mutex::new(Instant::now()),
            told: Cell::new(Instant::now()),
            untold: Cell::new(0),
            nobody: PasswordHash::of_nobody()?,
        })
    }

    /// Whether this is who it says to be.
    pub(crate) async fn admit(
        &self,
        house: &House,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Entry {
        let name = credentials.user.text().into_owned();
        if name == GUEST && !peer.is_loopback() {
            return self.refuse(house, peer, "`guest` comes from this machine alone");
        }
        let user = house.accounts.borrow().users.get(&name).cloned();
        let hash = user.and_then(|user| user.password);
        let tag = hmac::sign(&self.key, &credentials.password);
        if let Some(hash) = &hash
            && let Some((of, known)) = self.known.borrow().get(&name)
            && of == hash
            && hmac::verify(&self.key, &credentials.password, known.as_ref()).is_ok()
        {
            return Entry::Granted;
        }
        let claim = (name.clone(), tag.as_ref().to_vec());
        let right = self.compare_once(peer, claim, hash.as_ref(), credentials);
        let Some(right) = right.await else {
            return self.refuse(house, peer, "too many wait to be let in");
        };
        // It took a while: a user that was removed meanwhile, or has another password, is not let in by the old one.
        let now = house.accounts.borrow().users.get(&name).cloned();
        let now = now.and_then(|user| user.password);
        match hash {
            Some(hash) if right && now.as_ref() == Some(&hash) => {
                self.known.borrow_mut().insert(name, (hash, tag));
                Entry::Granted
            }
            Some(_) | None => {
                tracing::debug!(user = %credentials.user, "wrong user or password");
                self.refuse(house, peer, "wrong user or password")
            }
        }
    }

    /// Tells it, but not each of thousands: a log has no limit but the disk.
    fn refuse(&self, house: &House, peer: IpAddr, why: &str) -> Entry {
        house.metrics.logins_refused.add(1);
        let now = Instant::now();
        if now < self.told.get() {
            self.untold.set(self.untold.get() + 1);
        } else {
            self.told.set(now + REFUSALS_TOLD_EVERY);
            let untold = self.untold.take();
            tracing::warn!(%peer, why, untold, "somebody is not let in");
        }
        Entry::Refused
    }

    /// The slow way, once for all who say the same meanwhile: after a restart a whole application comes back at once.
    async fn compare_once(
        &self,
        peer: IpAddr,
        claim: Claim,
        hash: Option<&PasswordHash>,
        credentials: &Credentials,
    ) -> Option<bool> {
        loop {
            let under_way = self.under_way.borrow().get(&claim).cloned();
            let Some(mut other) = under_way.filter(|other| other.hash.as_ref() == hash) else {
                break;
            };
            // Who was on it may have gone away, or found no place: then one of those who waited is next.
            if let Ok(verdict) = other.verdict.wait_for(Option::is_some).await {
                return *verdict;
            }
        }
        let (tell, verdict) = watch::channel(None);
        let hash_of_it = hash.cloned();
        let under_way = UnderWay {
            hash: hash_of_it,
            verdict,
        };
        self.under_way.borrow_mut().insert(claim.clone(), under_way);
        let _entry = Entered {
            doorman: self,
            claim,
        };
        let right = self.compare(peer, hash, credentials).await;
        tell.send_replace(right);
        right
    }

    /// `None`: too many are on it.
    async fn compare(
        &self,
        peer: IpAddr,
        hash: Option<&PasswordHash>,
        credentials: &Credentials,
    ) -> Option<bool> {
        let _place = self.line_up(peer)?;
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + HASH_EVERY;
        let hash = hash.unwrap_or(&self.nobody).clone();
        let password = credentials.password.clone();
        let compared = tokio::task::spawn_blocking(move || hash.is_of(&password)).await;
        // It does not panic; if it did, nobody comes in.
        Some(compared.unwrap_or(false))
    }

    fn line_up(&self, peer: IpAddr) -> Option<Place<'_>> {
        let mut waiting = self.waiting.borrow_mut();
        let all: usize = waiting.values().sum();
        let of_peer = waiting.entry(peer).or_default();
        if all >= HASHES_WAITING_MAX || *of_peer >= HASHES_WAITING_PER_PEER_MAX {
            return None;
        }
        *of_peer += 1;
        Some(Place {
            doorman: self,
            peer,
        })
    }
}

/// Takes its claim out of what is under way, however it ends; before who waits is told that nobody is on it.
struct Entered<'a> {
    doorman: &'a Doorman,
    claim: Claim,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.doorman.under_way.borrow_mut().remove(&self.claim);
    }
}

/// A place in the line.
struct Place<'a> {
    doorman: &'a Doorman,
    peer: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.doorman.waiting.borrow_mut();
        if let Some(of_peer) = waiting.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                waiting.remove(&self.peer);
            }
        }
    }
}
