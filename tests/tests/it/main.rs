//! The scenarios that cross crates, one test binary.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod binary;
mod clocks;
mod commands_crash;
mod crash;
mod damage;
mod downlink;
mod old_image;
mod outside;
mod reconnect;
mod restored;
mod retention;
mod sessions;
mod settings;
mod suites;
mod tidy;
mod uplink;

/// Runs a scenario in a world of each seed: one thread, paused time.
#[macro_export]
macro_rules! scenario {
    ($(#[$doc:meta])* async fn $name:ident($world:ident: World) $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            for seed in unhidra_tests::seed::seeds() {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
                runtime.expect("a runtime").block_on(async {
                    #[allow(unused_mut, reason = "some scenarios only look")]
                    let mut $world = unhidra_tests::world::World::new(seed).await;
                    $body
                });
            }
        }
    };
}

/// What a device published, as its rows and its clients are to show it.
fn bodies(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}
