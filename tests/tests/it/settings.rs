//! Settings of a device that begins again with an old copy of all it holds.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use unhidra_node::control::{RowBody, SetAsked};
use unhidra_store::Store as _;
use unhidra_tests::device::SimDevice;
use unhidra_tests::world::World;

use crate::scenario;

async fn set(world: &World, pump: &SimDevice, name: &str, value: Option<&str>) {
    let value = value.map(|text| RowBody::Text(text.to_owned()));
    let asked = SetAsked { device: pump.id, name: name.parse().expect("a name"), value };
    world.live().expect("a node").set(asked).await.expect("taken");
}

/// The device publishes so many readings, some seconds apart: of what the node seals only so much goes
/// without a word of the device.
async fn speak(pump: &mut SimDevice, said: &mut usize, count: usize) {
    for _ in 0..count {
        pump.publish(&said.to_string());
        *said += 1;
        pump.acknowledged(*said).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

async fn is_in_sync(world: &World, pump: &SimDevice) -> bool {
    let settings = world.store.settings(&pump.id).await.expect("serves");
    settings.iter().all(|setting| setting.is_in_sync())
}

fn kept(pump: &SimDevice) -> BTreeMap<String, String> {
    let settings = pump.log().settings;
    settings.into_iter().filter_map(|(name, (_, value))| Some((name, value?))).collect()
}

scenario! {
    /// A device acknowledges what it is set to, and what it is to forget; then it begins again with a copy
    /// from before, a few message numbers old, in which the node sees nothing wrong, or many: it comes to
    /// what is wanted, also after more removals than it may have settings.
    async fn a_device_with_an_old_copy_comes_to_what_is_wanted(world: World) {
        let mut pump = world.provision("pump-7").await;
        let mut said = 0;
        speak(&mut pump, &mut said, 1).await;
        for (name, value) in [("gain", "1"), ("unit", "bar")] {
            set(&world, &pump, name, Some(value)).await;
        }
        speak(&mut pump, &mut said, 2).await;
        assert!(is_in_sync(&world, &pump).await);
        let copy = pump.copy();
        set(&world, &pump, "unit", None).await;
        set(&world, &pump, "gain", Some("2")).await;
        let removals = if world.rng.random() { 70 } else { 0 };
        for n in 0..removals {
            let name = format!("name-{n}");
            set(&world, &pump, &name, Some("x")).await;
            set(&world, &pump, &name, None).await;
            if n % 10 == 0 {
                speak(&mut pump, &mut said, 1).await;
            }
        }
        let since = world.rng.random_range(1..60);
        speak(&mut pump, &mut said, since).await;
        assert!(is_in_sync(&world, &pump).await, "SIM_SEED={}", world.seed());
        let wanted = BTreeMap::from([("gain".to_owned(), "2".to_owned())]);
        assert_eq!(kept(&pump), wanted, "SIM_SEED={}", world.seed());
        pump.put_back(copy).await;
        assert_eq!((&*kept(&pump)["gain"], &*kept(&pump)["unit"]), ("1", "bar"));
        speak(&mut pump, &mut said, 1).await;
        if world.rng.random() {
            world.stop_node().await;
            world.start_node().await;
        }
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        world.network.cut_all();
        speak(&mut pump, &mut said, 10).await;
        assert_eq!(kept(&pump), wanted, "SIM_SEED={}", world.seed());
    }
}
