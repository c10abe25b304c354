//! Rows to another broker: a window that slides.
//!
//! ```text
//!   taken ----+-- on their way, in order --+-- wait ----+---- still in the store
//!             | PUBACK: the cursor may     | at once, where
//!             v move behind the row        v there is room
//! ```
//!
//! What is on its way are always the first rows of the window, so the cursor never passes one without its
//! PUBACK, and what a connection that breaks has taken with it is offered again from there.

use super::super::fault::Sent;
use super::super::remote::{Offered, Remote};
use super::{PATIENCE, Running, SAVE_EVERY, Sink, news};

/// What has happened to rows on their way.
enum Happened {
    /// The first of them were taken, so many.
    Taken(usize),
    /// They were, and what follows was not.
    Ended(Sent),
    /// There may be something to read or to write down.
    Else,
}

impl Running {
    /// Sends the first rows of the window, so many, and unless one of them is suspect those that come
    /// behind them, until nothing is on its way. Cancelled, it has told the window all it has heard.
    pub(super) async fn flow(&mut self, count: usize) -> Sent {
        let flows = self.runner.courier.flows();
        let mut offered = 0;
        if let Some(remote) = self.remote()
            && let Err(sent) = remote.open().await
        {
            return sent;
        }
        let mut has_read = true;
        loop {
            offered += self.offer(if flows { usize::MAX } else { count - offered });
            let Some(remote) = self.remote() else { return Sent::all(0) };
            let on_their_way = remote.on_their_way();
            if on_their_way == 0 {
                return remote.ended(offered);
            }
            self.runner.courier.flowed(0, on_their_way);
            match self.happens(has_read).await {
                Happened::Taken(taken) => self.took(taken, on_their_way - taken),
                Happened::Ended(sent) => return sent,
                Happened::Else => {}
            }
            if self.is_due() {
                self.save().await;
            }
            if flows {
                has_read = self.read().await;
            }
            self.show();
        }
    }

    /// Sends the witness at this place of the window, on a connection with nothing else on its way. Whatever
    /// becomes of it, the window stays as it is: the row comes again in its turn.
    pub(super) async fn testify(&mut self, at: usize) -> Sent {
        let Self { runner, window, .. } = self;
        match (&mut runner.sink, window.at(at)) {
            (Sink::Remote(remote), Some(witness)) => remote.send_alone(&witness.item).await,
            _ => Sent::all(0),
        }
    }

    fn remote(&mut self) -> Option<&mut Remote> {
        match &mut self.runner.sink {
            Sink::Remote(remote) => Some(remote),
            Sink::Local(_) | Sink::Webhook(_) => None,
        }
    }

    /// Sends what waits behind the rows on their way, so many at most, as far as there is room. Says how
    /// many it were.
    fn offer(&mut self, rows_max: usize) -> usize {
        let Sink::Remote(remote) = &mut self.runner.sink else { return 0 };
        let mut offered = 0;
        while offered < rows_max
            && let Some(waiting) = self.window.at(remote.on_their_way())
            && remote.offer(&waiting.item) == Offered::Sent
        {
            offered += 1;
        }
        offered
    }

    /// Waits for a PUBACK; for new rows, where there is room for them; or until the cursors are to be
    /// written down.
    async fn happens(&mut self, has_read: bool) -> Happened {
        let (rows_max, bytes_max) = self.runner.window;
        let has_room = has_read && !self.window.is_full(rows_max, bytes_max);
        let now = self.runner.clock.now();
        let save_at = self.is_dirty().then(|| self.saved_at.saturating_add(SAVE_EVERY));
        let wait = save_at.map_or(PATIENCE, |at| at.saturating_since(now));
        let Sink::Remote(remote) = &mut self.runner.sink else { return Happened::Else };
        tokio::select! {
            biased;
            answered = remote.acknowledged() => match answered {
                Ok(taken) => Happened::Taken(taken),
                Err(sent) => Happened::Ended(sent),
            },
            () = news(&mut self.ends), if has_room => Happened::Else,
            () = tokio::time::sleep(wait) => Happened::Else,
        }
    }

    /// The first rows were taken; those behind them that are on their way go on.
    fn took(&mut self, taken: usize, on_their_way: usize) {
        self.runner.courier.flowed(taken, on_their_way);
        self.runner.status.delivers(taken);
        self.window.done(taken);
        if std::mem::replace(&mut self.failing, false) {
            tracing::info!(outlet = self.runner.status.name, "rows are taken again");
        }
    }
}
