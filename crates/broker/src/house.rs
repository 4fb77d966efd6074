//! What all tasks of the broker share: one thread, so that a `RefCell` is enough, and none is held over an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_amqp::ConnectionId;
use mainstay_journal::messages::Places;
use mainstay_kernel::descriptors;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::host::Call;
use crate::inbox::Inbox;
use crate::limits::Room;
use crate::mailbox::{Mailbox, Word};
use crate::metrics::Metrics;
use crate::tls;
use crate::writer::{Gauges, Order};

/// It.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) clock: Clock,
    pub(crate) places: Places,
    pub(crate) accounts: RefCell<Accounts>,
    pub(crate) hosts: RefCell<BTreeMap<String, Rc<Inbox<Call>>>>,
    /// Of the virtual hosts.
    pub(crate) tasks: TaskTracker,
    pub(crate) connections: RefCell<BTreeMap<ConnectionId, Rc<Mailbox>>>,
    /// How many of them may be in a virtual host.
    pub(crate) room: Room,
    /// How many are.
    entered: Cell<usize>,
    /// Whether somebody was told that there is no room, since there was.
    told_full: Cell<bool>,
    pub(crate) tls: Rc<tls::Seen>,
    pub(crate) metrics: Metrics,
    pub(crate) gauges: Arc<Gauges>,
    /// The writer failed, or something that must not be: nothing more is promised.
    pub(crate) failed: CancellationToken,
    given_up: Cell<Option<&'static str>>,
    /// Why publishers wait, if they do.
    alarm: Cell<Option<&'static str>>,
    orders: RefCell<Option<mpsc::Sender<Order>>>,
    next_connection: Cell<u64>,
}

impl House {
    pub(crate) fn new(
        clock: Clock,
        places: Places,
        accounts: Accounts,
        orders: mpsc::Sender<Order>,
        gauges: Arc<Gauges>,
        failed: CancellationToken,
    ) -> Self {
        Self {
            clock,
            places,
            accounts: RefCell::new(accounts),
            hosts: RefCell::default(),
            tasks: TaskTracker::new(),
            connections: RefCell::default(),
            room: Room::of(descriptors::limit()),
            entered: Cell::new(0),
            told_full: Cell::new(false),
            tls: Rc::default(),
            metrics: Metrics::default(),
            gauges,
            failed,
            given_up: Cell::new(None),
            alarm: Cell::new(None),
            orders: RefCell::new(Some(orders)),
            // 0 is the operators' own.
            next_connection: Cell::new(1),
        }
    }

    /// A place among the connections, given back when it is dropped; `None`: there is none.
    pub(crate) fn take_place(self: &Rc<Self>) -> Option<Place> {
        let (entered, most) = (self.entered.get(), self.room.connections);
        if entered >= most {
            if !self.told_full.replace(true) {
                tracing::warn!(
                    most,
                    "there are as many connections as there may be; more are refused"
                );
            }
            return None;
        }
        self.entered.set(entered + 1);
        Some(Place(Rc::clone(self)))
    }

    /// The way to the writer, while there is one.
    pub(crate) fn orders(&self) -> mpsc::Sender<Order> {
        let orders = self.orders.borrow();
        orders.clone().expect("the writer ends after all who write")
    }

    /// Nobody orders anything after this.
    pub(crate) fn close_orders(&self) {
        self.orders.borrow_mut().take();
    }

    pub(crate) fn next_connection(&self) -> ConnectionId {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        ConnectionId(number)
    }

    /// Ends the broker: what is true is on disk, and what is in memory is not to be trusted.
    pub(crate) fn give_up(&self, why: &'static str) {
        self.given_up.set(Some(why));
        self.failed.cancel();
    }

    pub(crate) fn given_up(&self) -> Option<&'static str> {
        self.given_up.get()
    }

    pub(crate) fn alarm(&self) -> Option<&'static str> {
        self.alarm.get()
    }

    /// Publishers wait, or go on.
    pub(crate) fn set_alarm(&self, alarm: Option<&'static str>) {
        if self.alarm.replace(alarm) == alarm {
            return;
        }
        if let Some(why) = alarm {
            tracing::warn!(why, "publishers are blocked");
        } else {
            tracing::info!("publishers go on");
        }
        let word = alarm.map_or(Word::Unblock, Word::Block);
        for mailbox in self.connections.borrow().values() {
            mailbox.say(word.clone());
        }
    }

    pub(crate) fn shut_all(&self, why: &str) {
        for mailbox in self.connections.borrow().values() {
            mailbox.say(Word::Shut(why.to_owned()));
        }
    }
}

/// A place of a connection that is in a virtual host.
#[derive(Debug)]
pub(crate) struct Place(Rc<House>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.entered.set(self.0.entered.get() - 1);
        self.0.told_full.set(false);
    }
}
