//! One reading to many clients: `cargo bench -p unhidra-gateway`.
//!
//! Clients sit on duplex streams in the same thread, so the figure is what one core pays for
//! dispatch, WebSocket framing, writing, and the clients' reading of it, per delivery.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark measures or fails")]
#![allow(dead_code, reason = "the world has more than this needs")]

#[path = "../tests/it/store.rs"]
mod store;
#[path = "../tests/it/world.rs"]
mod world;

use std::time::Instant;

use crate::store::MemoryStore;
use crate::world::{Client, World, config};

const READINGS: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for clients in [100, 1000, 10_000] {
        for batch in [1, 20] {
            let us = runtime.block_on(measure(clients, batch));
            println!("{clients:>6} clients, {batch:>2} readings a commit: {us:.2} us a delivery");
        }
    }
}

async fn measure(clients: usize, batch: usize) -> f64 {
    let mut config = config();
    config.clients_max = clients;
    config.connections_max = clients;
    let world = World::with(config, MemoryStore::new(1, 1));
    let token = world.token();
    let mut watchers: Vec<Client> = Vec::with_capacity(clients);
    for _ in 0..clients {
        let mut client = world.connect().await;
        client.authenticate(&token).await;
        client.subscribe("*", None).await;
        client.hear_type("caught_up").await;
        watchers.push(client);
    }
    let begin = Instant::now();
    for _ in 0..READINGS / batch {
        world.publish("pump-7", batch);
        for watcher in &mut watchers {
            watcher.take().await;
        }
    }
    begin.elapsed().as_secs_f64() * 1e6 / (READINGS * clients) as f64
}
