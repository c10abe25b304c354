//! The node's writer: what one event writes, and what leaves once that is committed.

use unhidra_core::durable::DurableSource;
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::session::Pending;

use super::Node;
use crate::rule::Rule;
use crate::store::Write;
use crate::wire::{DownPacket, DownRow, inner_message};
use crate::world::{Broken, Env};

/// What leaves when its draft is committed.
pub(super) enum Effect {
    /// The answer to a publish of the device.
    Answer { publication: Option<u64>, accepted: bool },
    /// Bytes that no ratchet made; of a ResetRequest, when it was due.
    Plain { row: DownRow, bytes: Vec<u8>, reset_at: Option<u64> },
    /// A sealed message.
    Sealed { ticket: u64, pending: Pending<Vec<u8>> },
}

/// What leaves the node.
pub(crate) enum Out {
    Answer(u64, bool),
    Packet(DownPacket),
}

/// What one event writes, and what follows once it is written.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) writes: Vec<Write>,
    pub(super) effects: Vec<Effect>,
    /// The handshake that begins a session here.
    pub(super) begins: Option<Vec<u8>>,
}

/// Where a commit ends otherwise than well.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// How many commits are done before it.
    pub(crate) commits: u8,
    /// Whether it is on disk all the same.
    pub(crate) done: bool,
    /// Whether the process ends with it.
    pub(crate) ends: bool,
}

/// What became of the node's drafts.
#[derive(Eq, PartialEq)]
pub(crate) enum Went {
    /// All are committed.
    Well,
    /// A commit failed; every connection is closed.
    Down,
}

impl Node {
    /// The writer commits what waits, and what was waiting for it leaves.
    pub(crate) fn commit(&mut self, env: &mut Env, out: &mut Vec<Out>) -> Result<Went, Broken> {
        while self.drafts.len() > usize::from(self.busy) {
            let Some(draft) = self.drafts.pop_front() else { break };
            match self.fault.take() {
                Some(Fault { commits: 0, done, ends }) => {
                    self.fails(draft, done, ends, env, out)?;
                    return Ok(Went::Down);
                }
                Some(fault) => self.fault = Some(Fault { commits: fault.commits - 1, ..fault }),
                None => {}
            }
            self.applies(&draft, env)?;
            release(draft.effects, env, out)?;
        }
        Ok(Went::Well)
    }

    fn applies(&mut self, draft: &Draft, env: &mut Env) -> Result<(), Broken> {
        self.store.apply(&draft.writes, &mut env.ledger)?;
        if let Some(Ok(Envelope::HandshakeInit(init))) = draft.begins.as_ref().map(|bytes| Envelope::parse(bytes)) {
            env.ledger.node_began(&init)?;
        }
        Ok(())
    }

    /// A commit that fails: nothing of it leaves, and nothing behind it.
    fn fails(
        &mut self,
        mut draft: Draft,
        done: bool,
        ends: bool,
        env: &mut Env,
        out: &mut Vec<Out>,
    ) -> Result<(), Broken> {
        let is_row = |write: &Write| matches!(write, Write::Row(..));
        if done {
            self.applies(&draft, env)?;
        } else if !env.keeps(Rule::OneCommit) {
            // Two commits, and the power went between them: the ratchet moved, the row is lost.
            draft.writes.retain(|write| !is_row(write));
            self.store.apply(&draft.writes, &mut env.ledger)?;
        }
        let early = |effect: &Effect| match effect {
            Effect::Answer { .. } => !env.keeps(Rule::CommitThenAcknowledge),
            Effect::Sealed { .. } => !env.keeps(Rule::CommitThenSend),
            Effect::Plain { .. } => false,
        };
        let left: Vec<Effect> = draft.effects.into_iter().filter(early).collect();
        release(left, env, out)?;
        self.drafts.clear();
        if ends || env.keeps(Rule::VoidAfterFailure) {
            self.restarts(env);
        }
        Ok(())
    }
}

fn release(effects: Vec<Effect>, env: &mut Env, out: &mut Vec<Out>) -> Result<(), Broken> {
    for effect in effects {
        match effect {
            Effect::Answer { publication: Some(publication), accepted } => out.push(Out::Answer(publication, accepted)),
            Effect::Answer { publication: None, .. } => {}
            Effect::Plain { row, bytes, reset_at } => {
                if let Some(at) = reset_at {
                    env.ledger.resets(at)?;
                }
                out.push(Out::Packet(DownPacket { ticket: None, row, bytes }));
            }
            Effect::Sealed { ticket, pending } => {
                let bytes = pending.release(DurableSource::new_for_storage().durable());
                if let Some(message) = inner_message(&bytes) {
                    env.ledger.released_down(&message)?;
                }
                out.push(Out::Packet(DownPacket { ticket: Some(ticket), row: DownRow::Commands, bytes }));
            }
        }
    }
    Ok(())
}
