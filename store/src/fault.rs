//! What can be made to go wrong, for tests.

/// How a commit fails. Either way, who asked for it cannot know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Nothing of it is durable.
    NotWritten,
    /// All of it is durable.
    Written,
    /// Nothing of it is durable: the engine panicked.
    Panic,
}

/// Where a node dies. No answer of that commit, or of one after it, is ever given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashPoint {
    /// Nothing of the commit is durable.
    BeforeCommit,
    /// All of the commit is durable.
    AfterCommit,
}
