//! What other rooms' tests need of the client.

use super::Publication;
use super::window::Window;

/// The `nth` publication of a client, from 1.
pub(crate) fn publication(nth: usize) -> Publication {
    let mut window = Window::<32, 32>::new();
    let made = (0..nth).map(|_| window.push("t", true, b"").expect("a slot"));
    made.last().expect("at least one")
}
