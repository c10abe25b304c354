//! Asking for a bundle: one question at a time, each with a nonce of its own.
//!
//! ```text
//! Idle --ask--> Asked --bundle--> Idle
//!   ^             |
//!   |             +--refused, 30 s--> Later --its time--> Idle
//!   +--------------------------------------------------------+
//! ```

use core::time::Duration;

use rand_core::CryptoRng;
use unhidra_core::time::Timestamp;
use unhidra_e2ee::envelope::{PREKEY_REQUEST_LEN, PrekeyRequest};
use unhidra_e2ee::suite::Suite;

use crate::client::{Publication, ReasonCode};

/// How long a bundle may take, and how long to wait after a refusal.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) enum Prekeys {
    Idle,
    Asked { nonce: [u8; 16], publication: Option<Publication>, deadline: Timestamp },
    Later { at: Timestamp },
}

impl Prekeys {
    pub(super) fn may_ask(&self, now: Timestamp) -> bool {
        match self {
            Self::Idle => true,
            Self::Asked { .. } => false,
            Self::Later { at } => now >= *at,
        }
    }

    pub(super) const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Draws a nonce, and gives the request.
    pub(super) fn ask(&mut self, suite: Suite, now: Timestamp, rng: &mut impl CryptoRng) -> [u8; PREKEY_REQUEST_LEN] {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        *self = Self::Asked { nonce, publication: None, deadline: now.saturating_add(PATIENCE) };
        PrekeyRequest { suite, nonce }.encode()
    }

    /// The request is on its way, or was not taken.
    pub(super) fn asked(&mut self, sent: Option<Publication>, now: Timestamp) {
        match (&mut *self, sent) {
            (Self::Asked { publication, .. }, Some(_)) => *publication = sent,
            _ => self.later(now),
        }
    }

    /// PUBACK; of other messages too.
    pub(super) fn acknowledged(&mut self, acknowledged: Publication, reason: ReasonCode, now: Timestamp) {
        let is_ours = matches!(self, Self::Asked { publication, .. } if *publication == Some(acknowledged));
        if reason.is_undelivered() && is_ours {
            self.later(now);
        }
    }

    /// The nonce a bundle must answer, in time: it says what time it was, and that has passed.
    pub(super) fn nonce(&self, now: Timestamp) -> Option<&[u8; 16]> {
        match self {
            Self::Asked { nonce, deadline, .. } if now < *deadline => Some(nonce),
            Self::Asked { .. } | Self::Idle | Self::Later { .. } => None,
        }
    }

    /// The bundle that was asked for has come and served.
    pub(super) fn answered(&mut self) {
        *self = Self::Idle;
    }

    /// It has come and did not serve.
    pub(super) fn later(&mut self, now: Timestamp) {
        *self = Self::Later { at: now.saturating_add(PATIENCE) };
    }

    pub(super) const fn poll_timeout(&self) -> Option<Timestamp> {
        match self {
            Self::Idle => None,
            Self::Asked { deadline, .. } => Some(*deadline),
            Self::Later { at } => Some(*at),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if self.poll_timeout().is_some_and(|at| now >= at) {
            *self = Self::Idle;
        }
    }
}
