//! What a worker does while an address is left.

use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::connection::Client;
use crate::leave::{Ears, Guest, Leave, Leaving, Report, Step, Wish};
use crate::limits::LEAVE_LOOK;

/// A session in a worker's list.
pub(crate) struct Hosted {
    worker: Rc<Worker>,
    guest: Rc<Guest>,
}

impl Hosted {
    /// Cancelled when the session is to end.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.guest.cut.clone()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        let mut guests = self.worker.guests.borrow_mut();
        let place = self.guest.place.get();
        guests.swap_remove(place);
        if let Some(moved) = guests.get(place) {
            moved.place.set(place);
        }
    }
}

impl Worker {
    /// Takes a session of a listener to this address into the list, until the guard is dropped.
    pub(crate) fn host(self: &Rc<Self>, local: IpAddr) -> Hosted {
        let mut guests = self.guests.borrow_mut();
        let guest = Rc::new(Guest {
            local,
            cut: CancellationToken::new(),
            place: guests.len().into(),
        });
        guests.push(Rc::clone(&guest));
        Hosted {
            worker: Rc::clone(self),
            guest,
        }
    }

    /// What is wanted next at addresses that may be left; `None`: it is time to look who has gone.
    pub(super) async fn next_wish(&self, ears: &mut Ears) -> Option<Wish> {
        let next = async {
            if ears.wishes.changed().await.is_err() {
                // Nobody can be asked any more.
                std::future::pending::<()>().await;
            }
            ears.wishes.borrow_and_update().clone()
        };
        let leaves = self.leaving.borrow().is_some();
        if !leaves {
            return Some(next.await);
        }
        tokio::select! {
            wish = next => Some(wish),
            () = self.client_left.notified() => None,
            () = sleep(LEAVE_LOOK) => None,
        }
    }

    /// Has a client that comes while its address is left be quick.
    pub(crate) fn greet(&self, client: &Client) {
        let leaving = self.leaving.borrow();
        let Some(Leaving { leave, .. }) = &*leaving else {
            return;
        };
        if !client.is_concerned(leave) {
            return;
        }
        match leave.step {
            Step::Finish => client.be_brief(),
            Step::Shut | Step::Empty | Step::Cut => client.finish_up(),
        }
    }

    pub(super) fn heed(&self, wish: &Wish) {
        let mut leaving = self.leaving.borrow_mut();
        let Wish::Leave(leave) = wish else {
            *leaving = None;
            return;
        };
        let same = |leaving: &&mut Leaving| leaving.leave.number == leave.number;
        match leaving.as_mut().filter(same) {
            Some(leaving) => leaving.leave.step = leave.step,
            None => *leaving = Some(self.begin_leave(leave)),
        }
        match leave.step {
            Step::Finish | Step::Empty => {}
            Step::Shut => self.concerned(leave, Client::finish_up),
            Step::Cut => {
                let mut cut = 0;
                self.concerned(leave, |client| {
                    cut += 1;
                    client.cut();
                });
                for guest in self.guests.borrow().iter() {
                    if leave.concerns(guest.local) {
                        cut += 1;
                        guest.cut.cancel();
                    }
                }
                if let Some(leaving) = leaving.as_mut() {
                    leaving.cut = cut;
                }
            }
        }
    }

    fn begin_leave(&self, leave: &Leave) -> Leaving {
        let mut leaving = Leaving::new(leave.clone());
        for client in self.clients.borrow().iter() {
            if client.is_concerned(leave) {
                client.finish_up();
                leaving.elders.push(Rc::downgrade(client));
            }
        }
        let guests = self.guests.borrow();
        let concerned = guests.iter().filter(|guest| leave.concerns(guest.local));
        leaving.elder_guests = concerned.map(Rc::downgrade).collect();
        leaving
    }

    fn concerned(&self, leave: &Leave, mut act: impl FnMut(&Client)) {
        for client in self.clients.borrow().iter() {
            if client.is_concerned(leave) {
                act(client);
            }
        }
    }

    /// Says when those have gone who were to go.
    pub(super) fn look_who_left(&self, reports: &mpsc::Sender<Report>) {
        let mut leaving = self.leaving.borrow_mut();
        let Some(leaving) = leaving.as_mut() else {
            return;
        };
        let leave = leaving.leave.clone();
        let clients = self.clients.borrow();
        let mut concerned = clients.iter().filter(|client| client.is_concerned(&leave));
        let done = match leave.step {
            Step::Finish => leaving.elders_have_gone(),
            Step::Shut => false,
            // Whose proxy has not said yet who they are may be concerned, too.
            Step::Empty => self.arriving.get() == 0 && concerned.all(|client| client.is_tunnel()),
            Step::Cut => {
                let guests = self.guests.borrow();
                let stays = guests.iter().any(|guest| leave.concerns(guest.local));
                !stays && concerned.next().is_none()
            }
        };
        if done {
            leaving.report(reports);
        }
    }
}
