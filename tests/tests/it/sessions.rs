//! What becomes of a session over days.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::scenario;

const DAY_S: u64 = 24 * 3600;

scenario! {
    /// A device that only ever publishes, and is sent nothing but what the node says of itself, has
    /// a new ratchet key every day: who stole the one before is shut out.
    async fn a_device_that_only_publishes_heals_every_day(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut seen = BTreeSet::new();
        let mut published = 0;
        for day in 0..4 {
            for _ in 0..48 {
                pump.publish(&published.to_string());
                published += 1;
                tokio::time::sleep(Duration::from_secs(DAY_S / 48)).await;
            }
            pump.acknowledged(published).await;
            let now = world.ratchet_keys(&pump).await.pop().expect("a message");
            assert!(seen.insert(now), "day {day}: the key of a day before, SIM_SEED={}", world.seed());
        }
        assert_eq!(pump.log().sessions, 1, "SIM_SEED={}", world.seed());
    }
}
