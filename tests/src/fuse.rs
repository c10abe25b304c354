//! Where something that lives in the world dies when it is told to: just before or just after one
//! of its writes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// On which side of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Nothing of it happens.
    Before,
    /// All of it happens, and nothing after it.
    After,
}

/// Burns through at one write, and lets nothing pass from then on.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    blown: Notify,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Whole,
    /// It burns through at the write that comes after so many others.
    Lit {
        side: Side,
        after: u32,
    },
    Blown,
}

/// What a write does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Passage {
    /// It happens.
    Free,
    /// It happens, and is the last one.
    Last,
    /// It does not happen.
    Shut,
}

impl Fuse {
    /// Burns through on one side of the write that comes after so many others.
    pub fn light(&self, side: Side, after: u32) {
        *self.lock() = State::Lit { side, after };
    }

    /// Is whole again.
    pub fn mend(&self) {
        *self.lock() = State::Whole;
    }

    /// Completes once it has burnt through.
    pub async fn blown(&self) {
        while !self.is_blown() {
            self.0.blown.notified().await;
        }
    }

    /// Whether it has burnt through.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        *self.lock() == State::Blown
    }

    /// A write comes.
    pub fn write(&self) -> Passage {
        let mut state = self.lock();
        let (next, passage) = match *state {
            State::Whole => (State::Whole, Passage::Free),
            State::Lit { side, after: 0 } => {
                (State::Blown, if side == Side::Before { Passage::Shut } else { Passage::Last })
            }
            State::Lit { side, after } => (State::Lit { side, after: after - 1 }, Passage::Free),
            State::Blown => (State::Blown, Passage::Shut),
        };
        if next == State::Blown && *state != State::Blown {
            self.0.blown.notify_one();
        }
        *state = next;
        passage
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_that_was_named_is_the_last_or_does_not_happen() {
        let fuse = Fuse::default();
        fuse.light(Side::After, 1);
        assert_eq!([(); 3].map(|()| fuse.write()), [Passage::Free, Passage::Last, Passage::Shut]);
        fuse.mend();
        fuse.light(Side::Before, 1);
        assert_eq!([(); 3].map(|()| fuse.write()), [Passage::Free, Passage::Shut, Passage::Shut]);
        assert!(fuse.is_blown());
    }
}
