//! Who asks for what is being done: the name that the log of acts gets.
//!
//! It goes along with a task and not through every call: an act is written far from the door its
//! asker came in by. Whoever hands work to another task takes the name with it.

use std::sync::Arc;

tokio::task_local! {
    static ASKER: Arc<str>;
}

/// What is done by nobody's asking.
const NODE: &str = "node";

/// Does `work` in the name of `asker`.
pub(crate) async fn by<T>(asker: Arc<str>, work: impl Future<Output = T>) -> T {
    ASKER.scope(asker, work).await
}

/// In whose name this task does what it does.
pub(crate) fn current() -> Arc<str> {
    ASKER.try_with(Arc::clone).unwrap_or_else(|_| NODE.into())
}

/// A user of this system.
pub(crate) fn user(uid: u32) -> Arc<str> {
    format!("uid {uid}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_acts_in_the_name_it_was_given_and_no_further() {
        assert_eq!(&*current(), "node");
        let inside = by(user(7), async { (current(), tokio::spawn(async { current() }).await.unwrap()) }).await;
        assert_eq!((&*inside.0, &*inside.1), ("uid 7", "node"));
        assert_eq!(&*current(), "node");
    }
}
