//! What a virtual host has for a connection. Both live on one thread; nobody ever waits to put something in: what may be
//! in it is bounded by the pause that the virtual host makes (`UNSENT_HIGH`) and by what a client may ask at a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use mainstay_amqp::{Fault, Reply};
use mainstay_journal::messages::Place;

use crate::limits::{ASKED_MAX, LETTER_LEN};

/// One thing for a channel of the connection.
#[derive(Debug)]
pub(crate) enum Letter {
    /// An answer or a message, and where its body is if it is on disk alone.
    Reply(u16, Reply, Option<Arc<Place>>),
    Opened(u16),
    Closed(u16),
    Fault(u16, Fault),
}

impl Letter {
    /// Bytes that it stands for.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Reply(_, Reply::Content(_, properties, body), _) => {
                let body = usize::try_from(body.len()).unwrap_or(usize::MAX);
                LETTER_LEN + properties.len() + body
            }
            Self::Reply(_, Reply::Method(_), _)
            | Self::Opened(_)
            | Self::Closed(_)
            | Self::Fault(..) => LETTER_LEN,
        }
    }
}

/// What concerns the connection as a whole, and does not wait behind letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// Memory or disk run out.
    Block(&'static str),
    Unblock,
    /// Close it, and say why.
    Shut(String),
}

/// The box. Its owner is the connection's task; a `RefCell` since tasks of the same thread fill it, and none holds it over
/// an await.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: RefCell<VecDeque<Letter>>,
    words: RefCell<VecDeque<Word>>,
    waker: RefCell<Option<Waker>>,
    /// Bytes in the box.
    waiting: Cell<usize>,
    /// Bytes that the connection took out and has not written yet.
    unsent: Cell<usize>,
    paused: Cell<bool>,
    /// Batches of requests that the virtual host has not taken yet.
    asked: Cell<usize>,
}

impl Mailbox {
    /// Puts a letter in; the connection hears of it by [`Mailbox::ring`].
    pub(crate) fn put(&self, letter: Letter) {
        self.waiting.set(self.waiting.get() + letter.len());
        self.letters.borrow_mut().push_back(letter);
    }

    pub(crate) fn ring(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) fn say(&self, word: Word) {
        self.words.borrow_mut().push_back(word);
        self.ring();
    }

    pub(crate) fn take(&self) -> Option<Letter> {
        let letter = self.letters.borrow_mut().pop_front()?;
        self.waiting.set(self.waiting.get() - letter.len());
        Some(letter)
    }

    pub(crate) fn hear(&self) -> Option<Word> {
        self.words.borrow_mut().pop_front()
    }

    /// Who is to be woken by the next ring.
    pub(crate) fn listen(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Bytes that wait for the client.
    pub(crate) fn load(&self) -> usize {
        self.waiting.get() + self.unsent.get()
    }

    pub(crate) fn set_unsent(&self, len: usize) {
        self.unsent.set(len);
    }

    /// Whether the virtual host may be asked for more.
    pub(crate) fn may_ask(&self) -> bool {
        self.asked.get() < ASKED_MAX
    }

    /// It was asked.
    pub(crate) fn asks(&self) {
        self.asked.set(self.asked.get() + 1);
    }

    /// It took what it was asked for.
    pub(crate) fn taken(&self) {
        if self.asked.replace(self.asked.get() - 1) == ASKED_MAX {
            self.ring();
        }
    }

    /// Whether deliveries pause.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.set(paused);
    }
}
