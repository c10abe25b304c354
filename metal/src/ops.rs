//! Every public operation of e2ee, called with what the compiler cannot know: what these images
//! keep is what firmware and nodes run. They are linked to be looked at, and never run.

use core::fmt::{self, Write};
use core::hint::black_box;

use unhidra_core::durable::{Durable, DurableSource};

pub mod device;
pub mod node;
pub mod plain;
#[cfg(feature = "sdk")]
pub mod sdk;

/// A value of which nothing is known.
pub fn any<T>(value: T) -> T {
    black_box(value)
}

/// Uses a value, whatever it is.
pub fn used<T>(value: T) {
    black_box(value);
}

/// Bytes of which neither values nor number are known.
#[must_use]
pub fn bytes() -> &'static [u8] {
    static BYTES: [u8; 256] = [0; 256];
    any(&BYTES)
}

fn chunk<const N: usize>() -> &'static [u8; N] {
    bytes().first_chunk().unwrap_or(&[0; N])
}

fn durable() -> Durable {
    DurableSource::new_for_storage().durable()
}

/// Prints to nobody: formatting runs, and its text goes nowhere.
struct Nobody;

impl Write for Nobody {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        used(text);
        Ok(())
    }
}

/// What a log would print of a value.
fn say(value: &dyn fmt::Debug) {
    used(write!(Nobody, "{value:?}"));
}

/// What a log would print of an error.
pub fn tell(value: &dyn fmt::Display) {
    used(write!(Nobody, "{value}"));
}
