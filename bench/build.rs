//! Tells the program what it was built with, so that no figure is printed without it.

use std::env;
use std::process::Command;

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    println!("cargo:rustc-env=BENCH_RUSTC={}", String::from_utf8_lossy(&version).trim());

    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\u{1f}', " ");
    println!("cargo:rustc-env=BENCH_RUSTFLAGS={flags}");

    let mut profile = format!("{} opt-level={}", var("PROFILE"), var("OPT_LEVEL"));
    for (name, default) in [("LTO", "thin"), ("CODEGEN_UNITS", "4"), ("PANIC", "unwind")] {
        let variable = format!("CARGO_PROFILE_RELEASE_{name}");
        println!("cargo:rerun-if-env-changed={variable}");
        let value = env::var(variable).unwrap_or_else(|_| default.into());
        profile.push_str(&format!(" {}={value}", name.to_lowercase().replace('_', "-")));
    }
    println!("cargo:rustc-env=BENCH_PROFILE={profile}");
    println!("cargo:rerun-if-changed=build.rs");
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
