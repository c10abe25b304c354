//! What an idle connection costs in user space.

use std::time::Duration;

use crate::cases::{Outcome, Settings, Way, address, client};
use crate::engine::{Engine, Role};
use crate::peers::Running;
use crate::process;

/// Connections that come and go before the first look, so that what a broker sets up once does
/// not count.
const FIRST: usize = 200;

/// How long memory is given to settle before each look.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn run(way: Way, count: usize, broker: &Running, settings: &Settings) -> Result<Outcome, String> {
    drop(connected(way, FIRST, broker, settings)?);
    std::thread::sleep(SETTLE);
    let before = process::private_bytes(broker.pid);
    let engine = connected(way, count, broker, settings)?;
    std::thread::sleep(SETTLE);
    let bytes = process::private_bytes(broker.pid).saturating_sub(before) as f64 / count as f64;
    let error = engine.problems().first().cloned();
    Ok(Outcome { bytes: Some(bytes), error, ..Outcome::default() })
}

fn connected(way: Way, count: usize, broker: &Running, settings: &Settings) -> Result<Engine, String> {
    let mut engine = Engine::new(address(way, broker), 1).map_err(|error| error.to_string())?;
    (0..count).for_each(|number| engine.add(client(number, way, settings, Role::Idle)));
    engine.connect(Duration::from_secs(60))?;
    Ok(engine)
}
