//! How every script ends: the adversary is gone, nothing crashes, and nobody helps.

use crate::device::Calendar;
use crate::world::{Broken, MINUTE, World};

/// How long the two may take to find back, in minutes: the hour of a ResetRequest and the hour of
/// a device that begins by itself, one after the other, and what they cost.
const MINUTES_MAX: u64 = 130;
/// How many packets that may cost, and what is said meanwhile.
const PACKETS_MAX: usize = 600;
/// The device reads so often, in minutes.
const READS_EVERY: u64 = 5;
/// The node is given a command so often, in minutes.
const COMMANDS_EVERY: u64 = 20;

/// Whether a fresh reading goes up and a fresh command down, and is answered, at once.
fn works_at_once(world: &mut World) -> Result<bool, Broken> {
    let (heard, acted) = (world.env.tally.of("acknowledged"), world.env.tally.of("acted"));
    let reads = u8::from(!world.setup.listens);
    world.reads(reads)?;
    world.commands(60)?;
    world.env.now += 1000;
    world.settle_and_flow()?;
    let up = world.env.tally.of("acknowledged") >= heard + u32::from(reads);
    Ok(up && world.env.tally.of("acted") > acted)
}

impl World {
    pub(crate) fn settle_and_flow(&mut self) -> Result<(), Broken> {
        self.connect()?;
        self.settle()?;
        self.flow()
    }

    fn is_in_order(&self) -> bool {
        let (device, node) = (self.device.sessions().present(), self.node.sessions().present());
        let same = device.zip(node).is_some_and(|(device, node)| device.counter() == node.counter());
        same && device.is_some_and(|device| device.is_confirmed()) && self.device.is_quiet() && self.node.is_quiet()
    }

    /// From here on the two have an honest network and time. How many minutes it took until
    /// readings go up and commands down again.
    ///
    /// # Errors
    ///
    /// They did not find back, or not soon enough, or not cheaply enough.
    pub(crate) fn ends_quiet(&mut self) -> Result<u64, Broken> {
        self.device.cut = None;
        self.node.fault = None;
        self.node.busy = 0;
        self.wire.acks_lost = 0;
        if let Calendar::Clock(off) = &mut self.device.calendar {
            *off = 0;
        }
        self.env.ledger.clock_jumped(self.env.now);
        self.disconnect();
        let (before, acknowledged) = (self.packets(), self.env.tally.of("acknowledged"));
        let mut minutes = 0;
        loop {
            if minutes % READS_EVERY == 0 && !self.setup.listens {
                self.reads(1)?;
            }
            // A command may heal what readings alone do not: it waits for them.
            let heard = self.setup.listens || self.env.tally.of("acknowledged") > acknowledged;
            if minutes % COMMANDS_EVERY == 0 && heard {
                self.commands(60)?;
            }
            self.settle_and_flow()?;
            let heard = self.setup.listens || self.env.tally.of("acknowledged") > acknowledged;
            if heard && self.is_in_order() && works_at_once(self)? && self.is_in_order() {
                break;
            }
            if minutes > MINUTES_MAX {
                return Err(Broken(format!("wedged: nothing works after {minutes} minutes of quiet")));
            }
            minutes += 1;
            self.env.now += MINUTE;
        }
        let packets = self.packets() - before;
        if packets > PACKETS_MAX {
            return Err(Broken(format!("{packets} packets until it worked again")));
        }
        self.stays_in_order()?;
        Ok(minutes)
    }

    /// What works once works again: over a boot, a restart, and the time that steps take.
    fn stays_in_order(&mut self) -> Result<(), Broken> {
        let wrong = |when: &str| Broken(format!("nothing works {when}, though it did before"));
        // What the adversary failed with last may hold up a DH step for a minute.
        self.env.now += 2 * MINUTE;
        self.power_cut()?;
        // A device that has its time from the node asks for it first, or takes no command.
        self.settle_and_flow()?;
        if !works_at_once(self)? {
            return Err(wrong("after a boot"));
        }
        self.node_restarts();
        if !works_at_once(self)? {
            return Err(wrong("after the node's restart"));
        }
        for _ in 0..3 {
            self.env.now += 11 * MINUTE;
            if !works_at_once(self)? {
                return Err(wrong("later"));
            }
        }
        match self.is_in_order() {
            true => Ok(()),
            false => Err(Broken("something waits for ever".into())),
        }
    }
}
