//! Proof that something has reached storage that survives a power cut.

/// The right to say that something is durable.
///
/// Held by exactly two places: the store's writer and the device SDK's storage. The tidy test
/// reads the sources and holds every other place to that.
#[derive(Debug)]
pub struct DurableSource {
    _held: (),
}

impl DurableSource {
    /// Makes the source. Call it where the write is known to have completed, and nowhere else.
    #[must_use]
    pub const fn new_for_storage() -> Self {
        Self { _held: () }
    }

    /// One proof for one completed write.
    pub const fn durable(&self) -> Durable {
        Durable { _proof: () }
    }
}

/// Proof that the write before it is durable. It is spent by what it releases.
#[derive(Debug)]
#[must_use = "a proof of durability that releases nothing was made too early or in the wrong place"]
pub struct Durable {
    _proof: (),
}
