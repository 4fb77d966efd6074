//! What all tasks of the broker share: one thread, so that a `RefCell` is enough, and none is held over an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_amqp::rates::Counts;
use mainstay_amqp::{ConnectionId, Method, ShortString};
use mainstay_journal::messages::Places;
use mainstay_kernel::descriptors;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ClientLimits;
use crate::accounts::Accounts;
use crate::alarm::Limits;
use crate::backup::Copying;
use crate::clock::Clock;
use crate::host::Call;
use crate::inbox::Inbox;
use crate::limits::Room;
use crate::mailbox::{Mailbox, Word};
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::tls;
use crate::writer::{Gauges, Here, Order, Writer};
use crate::{Keeps, Options};

/// Whose a connection is, and where it went.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) user: String,
    pub(crate) vhost: String,
}

/// It.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) clock: Clock,
    pub(crate) places: Places,
    pub(crate) reader: Reader,
    pub(crate) accounts: RefCell<Accounts>,
    /// What clients may take.
    pub(crate) clients: ClientLimits,
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
    /// Of those that said which virtual host they want.
    pub(crate) homes: RefCell<BTreeMap<ConnectionId, Home>>,
    pub(crate) metrics: Metrics,
    /// How a virtual host writes by itself.
    pub(crate) here: Here,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) copying: Copying,
    /// When publishers wait.
    pub(crate) limits: Limits,
    /// Test seam.
    pub(crate) keeps: Keeps,
    /// Room on the disk when it was looked at last, in bytes.
    pub(crate) disk_free: Cell<Option<u64>>,
    /// What was counted in virtual hosts that are gone.
    pub(crate) gone: Cell<Counts>,
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
        copying: Copying,
        writer: &Writer,
        options: &Options,
    ) -> Self {
        Self {
            clock,
            places,
            reader: Reader::new(),
            accounts: RefCell::new(accounts),
            clients: options.clients,
            hosts: RefCell::default(),
            tasks: TaskTracker::new(),
            connections: RefCell::default(),
            room: Room::of(descriptors::limit()),
            entered: Cell::new(0),
            told_full: Cell::new(false),
            tls: Rc::default(),
            homes: RefCell::default(),
            metrics: Metrics::default(),
            here: writer.here.clone(),
            gauges: Arc::clone(&writer.gauges),
            failed: writer.failure.token.clone(),
            copying,
            limits: options.limits,
            keeps: options.seams.keeps,
            disk_free: Cell::new(None),
            gone: Cell::default(),
            given_up: Cell::new(None),
            alarm: Cell::new(None),
            orders: RefCell::new(Some(writer.orders.clone())),
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

    /// Test seam: one publish goes to no queue, and is confirmed as one that nobody wants is.
    pub(crate) fn keep(&self, mut method: Method) -> Method {
        /// In the burst of a proof at 100 messages a second or more.
        const LOST: u64 = 1000;
        if self.keeps == Keeps::AllButOne
            && self.metrics.published.get() == LOST
            && let Method::BasicPublish(publish) = &mut method
        {
            publish.exchange = ShortString::default();
            publish.routing_key = ShortString::literal("nowhere");
            publish.mandatory = false;
        }
        method
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

    /// Closes the connections of which this holds.
    pub(crate) fn shut_those(&self, why: &str, those: impl Fn(&Home) -> bool) {
        let (homes, connections) = (self.homes.borrow(), self.connections.borrow());
        let meant = homes.iter().filter(|(_, home)| those(home));
        for mailbox in meant.filter_map(|(id, _)| connections.get(id)) {
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
