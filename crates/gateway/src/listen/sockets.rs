//! The listening sockets of all listeners: bound and given up as the settings say, taken over from
//! another gateway and handed over to one.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use mainstay_kernel::hand::{self, Offer};
use mainstay_model::ListenSpec;
use tokio::sync::mpsc;

use crate::listen::seat;
use crate::sockets;

/// Sockets by address: one that only changes its listener stays as it is, so that nobody who waits
/// in its queue is lost.
pub(crate) struct Sockets {
    given: HashMap<SocketAddr, Vec<TcpListener>>,
    /// Where copies are offered to a successor.
    offer: Offer,
    /// Those that are wanted, with why they are not bound if so.
    bound: BTreeMap<SocketAddr, Option<String>>,
}

/// Under which name the sockets of an address are offered. Service addresses are offered as they
/// are; the same address must not be taken for one of the other kind.
fn offered_as(address: SocketAddr) -> String {
    format!("listen {address}")
}

/// The sockets that `elder` has for these listeners. They are asked for before we say that we serve:
/// then the elder is told to stop and offers them no longer. With new ones beside them, what waits in
/// the old queues would be reset at its end.
pub(crate) fn inherit(
    elder: &Path,
    listens: &[ListenSpec],
) -> HashMap<SocketAddr, Vec<TcpListener>> {
    let mut taken = HashMap::new();
    for address in listens.iter().flat_map(|spec| spec.bind.iter().copied()) {
        match hand::ask(elder, &offered_as(address)) {
            Ok(sockets) if sockets.is_empty() => {}
            Ok(sockets) => {
                let sockets = sockets.into_iter().map(|(_, socket)| socket.into());
                taken.insert(address, sockets.collect());
            }
            Err(error) => {
                // It has ended, mostly, or hangs: then it must not hold us up for each address.
                tracing::info!(%error, "no more addresses of listeners are taken over");
                break;
            }
        }
    }
    taken
}

impl Sockets {
    /// None yet but those that are `given`; copies of all are put into `offer`.
    pub(crate) fn new(given: HashMap<SocketAddr, Vec<TcpListener>>, offer: Offer) -> Self {
        Self {
            given,
            offer,
            bound: BTreeMap::new(),
        }
    }

    /// Binds what is missing of `wanted`, and gives up what is not in it.
    pub(crate) async fn follow(
        &mut self,
        wanted: impl Iterator<Item = SocketAddr>,
        orders: &[mpsc::Sender<seat::Order>],
    ) {
        let not_yet = || Some("it has not been bound yet".to_owned());
        let mut before = std::mem::take(&mut self.bound);
        for address in wanted {
            let state = before.remove(&address).unwrap_or_else(not_yet);
            self.bound.insert(address, state);
        }
        for address in before.into_keys() {
            self.offer.withdraw(&offered_as(address));
            for order in orders {
                // A worker that is gone listens no more.
                order.send(seat::Order::Unlisten(address)).await.ok();
            }
        }
        self.bind_missing(orders).await;
        // What was given and is not wanted would let clients wait for nobody.
        self.given.clear();
    }

    /// Tries those again that could not be bound.
    pub(crate) async fn bind_missing(&mut self, orders: &[mpsc::Sender<seat::Order>]) {
        for (&address, failing) in &mut self.bound {
            let Some(told) = failing else { continue };
            let listeners = match self.given.remove(&address) {
                Some(given) if given.len() == orders.len() => Ok(given),
                Some(_) | None => sockets::listen(address, orders.len()),
            };
            match listeners {
                Ok(listeners) => {
                    offer(&self.offer, address, &listeners);
                    for (order, listener) in orders.iter().zip(listeners) {
                        order
                            .send(seat::Order::Listen(address, listener))
                            .await
                            .ok();
                    }
                    tracing::info!(%address, "listening for servers that were not started here");
                    *failing = None;
                }
                Err(error) => {
                    let text = error.to_string();
                    if *told != text {
                        tracing::warn!(%address, %error, "cannot listen; trying again each second");
                    }
                    *told = text;
                }
            }
        }
    }

    /// Why the address is not bound, if so.
    pub(crate) fn failing(&self, address: SocketAddr) -> Option<String> {
        self.bound.get(&address).cloned().flatten()
    }

    /// Offers none any more. What waits in their queues is for whoever took them over.
    pub(crate) fn give_up(self) {
        for address in self.bound.into_keys() {
            self.offer.withdraw(&offered_as(address));
        }
    }
}

/// Copies for whoever takes over one day. Without them the next gateway binds anew, so that an error
/// costs no more than the queues of that moment.
fn offer(offer: &Offer, address: SocketAddr, listeners: &[TcpListener]) {
    let copies = listeners.iter().map(|one| one.try_clone().map(Into::into));
    match copies.collect() {
        Ok(copies) => offer.put(offered_as(address), copies),
        Err(error) => tracing::warn!(%address, %error, "cannot be handed over one day"),
    }
}
