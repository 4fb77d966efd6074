//! A bounded queue of calls to one task, from tasks of the same thread: no atomics, no wake across threads, and who finds it
//! full can wait for room while it does other things.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
struct State<T> {
    calls: VecDeque<T>,
    /// Who takes calls.
    taker: Option<Waker>,
    /// Who waits for room.
    waiting: Vec<Waker>,
    door: Door,
}

/// Whether anything is still taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Nobody takes calls any more: they are thrown away, and nobody waits.
    Closed,
}

/// The queue. A `RefCell`, since several tasks of one thread put calls in and none holds it over an await.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: RefCell<State<T>>,
    max: usize,
}

impl<T> Inbox<T> {
    pub(crate) fn new(max: usize) -> Self {
        let state = State {
            calls: VecDeque::new(),
            taker: None,
            waiting: Vec::new(),
            door: Door::Open,
        };
        Self {
            state: RefCell::new(state),
            max,
        }
    }

    /// Whether one more may be put in.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.calls.len() < self.max || state.door == Door::Closed {
            return Poll::Ready(());
        }
        let waker = cx.waker();
        if !state.waiting.iter().any(|known| known.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        Poll::Pending
    }

    /// Puts a call in. Who did not see room before puts in no more than one in its life, that it is gone, or is one of the few
    /// operators.
    pub(crate) fn put(&self, call: T) {
        let mut state = self.state.borrow_mut();
        if state.door == Door::Closed {
            return;
        }
        state.calls.push_back(call);
        if let Some(taker) = state.taker.take() {
            taker.wake();
        }
    }

    /// Until one more may be put in, which is to be done at once.
    pub(crate) async fn room(&self) {
        poll_fn(|cx| self.poll_room(cx)).await;
    }

    /// Puts a call in as soon as there is room.
    pub(crate) async fn send(&self, call: T) {
        self.room().await;
        self.put(call);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.borrow().calls.is_empty()
    }

    /// Nobody takes calls any more: those that wait are thrown away, and whoever waits for room goes on.
    pub(crate) fn close(&self) {
        let left = {
            let mut state = self.state.borrow_mut();
            state.door = Door::Closed;
            state.waiting.drain(..).for_each(Waker::wake);
            std::mem::take(&mut state.calls)
        };
        // What goes with a call may wake somebody: not while the state is borrowed.
        drop(left);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.borrow().door == Door::Closed
    }

    pub(crate) fn try_next(&self) -> Option<T> {
        let mut state = self.state.borrow_mut();
        let call = state.calls.pop_front();
        if state.calls.len() < self.max {
            state.waiting.drain(..).for_each(Waker::wake);
        }
        call
    }

    pub(crate) async fn next(&self) -> T {
        poll_fn(|cx| {
            if let Some(call) = self.try_next() {
                return Poll::Ready(call);
            }
            self.state.borrow_mut().taker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::task::Waker;

    use super::*;

    #[tokio::test(flavor = "local")]
    async fn who_finds_it_full_goes_on_when_there_is_room() {
        let inbox = Rc::new(Inbox::new(2));
        inbox.put(1);
        inbox.put(2);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(inbox.poll_room(&mut cx).is_pending());
        let sender = tokio::task::spawn_local({
            let inbox = Rc::clone(&inbox);
            async move { inbox.send(3).await }
        });
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(inbox.next().await);
        }
        sender.await.expect("sent");
        assert_eq!(taken, [1, 2, 3]);
        assert!(inbox.try_next().is_none());
    }

    #[tokio::test(flavor = "local")]
    async fn nobody_waits_for_room_in_one_that_is_closed() {
        let inbox = Rc::new(Inbox::new(1));
        inbox.put(1);
        let sender = tokio::task::spawn_local({
            let inbox = Rc::clone(&inbox);
            async move { inbox.send(2).await }
        });
        tokio::task::yield_now().await;
        assert!(!sender.is_finished() && !inbox.is_closed());
        inbox.close();
        sender.await.expect("it goes on");
        assert!(inbox.is_closed() && inbox.try_next().is_none());
    }
}
