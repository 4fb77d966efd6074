//! The client: says what stands in the script, in pieces, and keeps what it is told.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::task::yield_now;

use super::Moves;
use super::script::{Ends, Reads, Script};

/// More is not kept.
const KEPT_MAX: usize = 512 * 1024;

/// How much is said at most of what never ends.
const FLOOD_MAX: usize = 4 * 1024 * 1024;

fn keep(kept: &RefCell<Vec<u8>>, bytes: &[u8]) {
    let mut kept = kept.borrow_mut();
    let len = bytes.len().min(KEPT_MAX - kept.len());
    kept.extend_from_slice(&bytes[..len]);
}

/// The client, as it is judged.
#[derive(Debug)]
pub(super) struct Client {
    script: Rc<Script>,
    moves: Rc<Moves>,
    /// What it was told.
    pub(super) received: RefCell<Vec<u8>>,
    /// What it could say, as far as it is kept.
    pub(super) said: RefCell<Vec<u8>>,
    /// How much that was.
    pub(super) written: Cell<usize>,
}

impl Client {
    pub(super) fn new(script: Rc<Script>, moves: Rc<Moves>) -> Self {
        Self {
            script,
            moves,
            received: RefCell::default(),
            said: RefCell::default(),
            written: Cell::new(0),
        }
    }

    /// Plays to the end of the connection; without an end if it reads nothing and does not leave.
    pub(super) async fn play(self: Rc<Self>, mut stream: UnixStream) {
        let (from, to) = stream.split();
        let hear = async {
            match self.script.reads {
                Reads::All => self.read(from).await,
                Reads::Nothing => pending().await,
            }
        };
        let say = async {
            self.say(to).await;
            match self.script.ends {
                Ends::Leaves => {}
                Ends::Stays | Ends::Closes | Ends::Floods => pending().await,
            }
        };
        tokio::select! {
            () = hear => {}
            () = say => {}
        }
    }

    async fn read(&self, mut from: ReadHalf<'_>) {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut piece).await {
            self.moves.note();
            keep(&self.received, &piece[..len]);
        }
    }

    async fn say(&self, mut to: WriteHalf<'_>) {
        let mut rest = &*self.script.client;
        let mut cuts = self.script.cuts.into_iter().cycle();
        let mut last: &[u8] = b"x";
        while !rest.is_empty() {
            let len = cuts.next().unwrap_or(1).min(rest.len());
            let (piece, behind) = rest.split_at(len);
            if !self.write(&mut to, piece).await {
                return;
            }
            (rest, last) = (behind, piece);
            // Time to be read alone.
            for _ in 0..2 {
                yield_now().await;
            }
        }
        match self.script.ends {
            Ends::Closes => {
                to.shutdown().await.ok();
            }
            Ends::Leaves | Ends::Stays => {}
            Ends::Floods => {
                let flood = last.repeat(8 * 1024 / last.len());
                let before = self.written.get();
                while self.written.get() - before < FLOOD_MAX && self.write(&mut to, &flood).await {
                }
            }
        }
    }

    async fn write(&self, to: &mut WriteHalf<'_>, mut piece: &[u8]) -> bool {
        while !piece.is_empty() {
            match to.write(piece).await {
                Ok(len @ 1..) => {
                    self.moves.note();
                    self.written.set(self.written.get() + len);
                    keep(&self.said, &piece[..len]);
                    piece = &piece[len..];
                }
                Ok(0) | Err(_) => return false,
            }
        }
        true
    }
}
