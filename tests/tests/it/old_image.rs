//! A device that begins again with an old copy of its flash.

use rand::RngExt as _;
use unhidra_store::CrashPoint;

use crate::{bodies, scenario};

scenario! {
    /// A device begins again with an old copy of its flash, and the node dies while it finds that out:
    /// one new session heals it, no reading is taken twice, and what it says from then on arrives.
    async fn a_device_restored_from_an_old_copy_is_healed_by_one_new_session(world: World) {
        let mut pump = world.provision("pump-7").await;
        let before = world.rng.random_range(1..20);
        (0..before).for_each(|n| pump.publish(&n.to_string()));
        pump.acknowledged(before).await;
        let copy = pump.copy();
        // Within the lease of message numbers that the copy holds, or well beyond it.
        let since = world.rng.random_range(1..80);
        for n in 0..since {
            pump.publish(&(before + n).to_string());
            pump.acknowledged(before + n + 1).await;
        }
        pump.put_back(copy).await;
        let all = before + since;
        for n in 0..20 {
            pump.publish(&(all + n).to_string());
            if world.rng.random_range(0..8) == 0 {
                world.crash_at(CrashPoint::AfterCommit).await;
            }
        }
        pump.acknowledged(all + 20).await;
        let stored = world.stored().await.remove("pump-7").expect("rows");
        assert!(stored.is_sorted_by_key(|body| body.parse::<u32>().expect("a number")), "SIM_SEED={}", world.seed());
        assert_eq!(stored, bodies(all + 20), "SIM_SEED={}", world.seed());
        assert!(pump.log().sessions <= 2, "{} sessions, SIM_SEED={}", pump.log().sessions, world.seed());
    }
}
