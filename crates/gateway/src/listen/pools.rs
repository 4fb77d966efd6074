//! Buffers and pipes of one worker, lent for as long as bytes move.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::listen::limits::{BUFFER_LEN, BUFFERS_IDLE_MAX, PIPES_IDLE_MAX, PIPES_MAX};

/// The pools of one worker; every borrow ends before an await.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    buffers: RefCell<Vec<Box<[u8]>>>,
    pipes: RefCell<Vec<(OwnedFd, OwnedFd)>>,
    /// Pipes in use and idle.
    pipes_made: Cell<usize>,
}

impl Pools {
    /// A buffer of [`BUFFER_LEN`].
    pub(crate) fn buffer(self: &Rc<Self>) -> Buffer {
        let kept = self.buffers.borrow_mut().pop();
        let bytes = kept.unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice());
        Buffer {
            bytes,
            pools: Rc::clone(self),
        }
    }

    /// An empty pipe; `None`: there are as many as there may be, or the kernel has none.
    pub(crate) fn pipe(self: &Rc<Self>) -> Option<Pipe> {
        let kept = self.pipes.borrow_mut().pop();
        let (read, write) = match kept {
            Some(ends) => ends,
            None if self.pipes_made.get() >= PIPES_MAX => return None,
            None => {
                let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
                self.pipes_made.set(self.pipes_made.get() + 1);
                ends
            }
        };
        Some(Pipe {
            ends: Some((read, write)),
            filled: 0,
            pools: Rc::clone(self),
        })
    }
}

/// A lent buffer.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: Box<[u8]>,
    pools: Rc<Pools>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut buffers = self.pools.buffers.borrow_mut();
        if buffers.len() < BUFFERS_IDLE_MAX {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A lent pipe, with how much is in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Until it is dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    pub(crate) filled: usize,
    pools: Rc<Pools>,
}

impl Pipe {
    /// The end to read from and the end to write to.
    pub(crate) fn ends(&self) -> (&OwnedFd, &OwnedFd) {
        let (read, write) = self.ends.as_ref().expect("taken only when it is dropped");
        (read, write)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let mut pipes = self.pools.pipes.borrow_mut();
        // What a session left in its pipe must never reach another.
        if self.filled == 0 && pipes.len() < PIPES_IDLE_MAX {
            pipes.push(ends);
        } else {
            self.pools.pipes_made.set(self.pools.pipes_made.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_pipe_with_something_in_it_is_never_lent_again() {
        let pools = Rc::new(Pools::default());
        let mut pipe = pools.pipe().expect("there are pipes");
        rustix::io::write(pipe.ends().1, b"secret").expect("there is room");
        pipe.filled = 6;
        drop(pipe);
        assert_eq!(pools.pipes_made.get(), 0);
        let mut byte = [0; 1];
        let pipe = pools.pipe().expect("there are pipes");
        assert!(
            rustix::io::read(pipe.ends().0, &mut byte).is_err(),
            "it is empty"
        );
        let number = pipe.ends().0.as_raw_fd();
        drop(pipe);
        let again = pools.pipe().expect("there are pipes");
        assert_eq!(again.ends().0.as_raw_fd(), number, "an empty one is kept");
    }

    #[test]
    fn no_more_pipes_are_made_than_there_may_be() {
        let pools = Rc::new(Pools::default());
        let pipes: Vec<Pipe> = std::iter::from_fn(|| pools.pipe()).collect();
        assert_eq!(pipes.len(), PIPES_MAX);
        drop(pipes);
        assert_eq!(pools.pipes.borrow().len(), PIPES_IDLE_MAX);
        assert_eq!(pools.pipes_made.get(), PIPES_IDLE_MAX);
    }
}
