//! Clients sent away by those who look after the node.

use std::time::Duration;

use tokio::time::timeout;

use super::mailbox::Order;
use crate::Broker;
use crate::clients::{ClientRecord, SessionName, record};
use crate::packet::ReasonCode;
use crate::session::table::{Seen, SessionKey};

/// How long a connection has to be gone. It goes in any case.
const PATIENCE: Duration = Duration::from_secs(5);

impl Broker {
    /// Closes the connection of each of these sessions with 0x98, Administrative action, and with
    /// `forget` ends the sessions too, connected or not. Gives those of which something was ended,
    /// as they were before.
    ///
    /// A client that has not been forbidden to may come back at once.
    pub async fn kick(&self, sessions: &[SessionName], forget: bool) -> Vec<ClientRecord> {
        let mut kicked = Vec::new();
        let mut ending = Vec::new();
        for key in sessions.iter().map(SessionKey::from) {
            let Some(seen) = self.sessions().get(&key) else { continue };
            let (now, unix_now) = (self.clock().now(), self.clock().unix_now());
            let before = record(&key, &seen, now, unix_now);
            let stored = forget.then(|| self.sessions().forget(&key)).flatten();
            match (seen, stored) {
                (Seen::Live(mailbox), _) => {
                    let reason = ReasonCode::AdministrativeAction;
                    mailbox.order(if forget { Order::Revoke(reason) } else { Order::Close(reason) });
                    ending.push(mailbox);
                }
                (Seen::Stored { .. }, Some(stored)) => _ = self.end_session(*stored),
                (Seen::Stored { .. }, None) => continue,
            }
            kicked.push(before);
        }
        let ended = async {
            for mailbox in &ending {
                mailbox.ended().await;
            }
        };
        // One that takes longer is on its way out all the same.
        let _ = timeout(PATIENCE, ended).await;
        kicked
    }
}
