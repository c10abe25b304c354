//! The plan of the code, held by a test: who may import whom, and what may stand where.
//!
//! Reads every `Cargo.toml` and every source file of the workspace. ARCHITECTURE.md has the plan.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may import. `tests` may import all.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("core", &[]),
    ("e2ee", &["core"]),
    ("store", &["core"]),
    ("broker", &["core"]),
    ("bridge", &["e2ee", "store", "core"]),
    ("gateway", &["store", "core"]),
    ("certs", &["core"]),
    ("device-sdk", &["e2ee", "core"]),
    ("node", &["core", "store", "broker", "bridge", "gateway", "certs", "device-sdk"]),
    ("tests", &["core", "e2ee", "store", "broker", "bridge", "gateway", "certs", "device-sdk", "node"]),
];

/// Crates that run without an operating system.
const BARE_METAL: [&str; 3] = ["core", "e2ee", "device-sdk"];

/// The longest file: past it, look for the second noun.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn manifest(name: &str) -> toml::Table {
    let path = root().join(name).join("Cargo.toml");
    read(&path).parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every `.rs` file below `folder`, by its path from the workspace root.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
                found.insert(name, read(&path));
            }
        }
    }
    found
}

/// The product's sources: what is compiled into the crates, without their tests and examples.
fn product() -> BTreeMap<String, String> {
    MAY_IMPORT
        .iter()
        .filter(|(name, _)| *name != "tests")
        .flat_map(|(name, _)| sources(&format!("{name}/src")))
        .collect()
}

/// A source without its comments and without what follows `#[cfg(test)]`.
fn code(source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    let lines = source.get(..end).unwrap_or_default().lines();
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_point_down() {
    let members = read(&root().join("Cargo.toml"));
    for (name, allowed) in MAY_IMPORT {
        assert!(members.contains(&format!("\"{name}\"")), "{name} is no member of the workspace");
        let manifest = manifest(name);
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
            for dependency in dependencies.keys().filter_map(|key| key.strip_prefix("unhidra-")) {
                assert!(
                    allowed.contains(&dependency),
                    "{name} imports {dependency} in [{table}]; it may import {allowed:?}"
                );
            }
        }
    }
}

#[test]
fn every_dependency_is_declared_in_the_workspace_table() {
    for (name, _) in MAY_IMPORT {
        let manifest = manifest(name);
        for table in ["dependencies", "dev-dependencies"] {
            let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
            for (dependency, value) in dependencies {
                assert!(value.get("workspace").is_some(), "{name}: {dependency} gives a version of its own");
            }
        }
    }
}

#[test]
fn the_node_calls_the_device_sdk_from_the_simulated_devices_and_enrolment_alone() {
    let allowed = ["node/src/cli/simulate", "node/src/cli/demo", "node/src/cli/enroll"];
    for (path, source) in sources("node/src") {
        let calls = source.contains("unhidra_device_sdk");
        assert!(!calls || allowed.iter().any(|prefix| path.starts_with(prefix)), "{path} calls the device SDK");
    }
}

#[test]
fn durability_is_claimed_where_it_is_made_alone() {
    let allowed = ["core/src/durable.rs", "store/src/embedded", "store/src/memory", "device-sdk/src/storage"];
    for (path, source) in product() {
        let claims = code(&source).contains("DurableSource");
        assert!(!claims || allowed.iter().any(|prefix| path.starts_with(prefix)), "{path} claims durability");
    }
}

#[test]
fn no_branch_of_the_product_knows_of_tests() {
    for (path, source) in product() {
        for (at, line) in source.lines().enumerate() {
            let line = line.trim();
            assert!(
                !line.contains("cfg!(test)") && !line.contains("cfg(not(test))"),
                "{path}:{} knows of tests",
                at + 1
            );
            let next = source.lines().nth(at + 1).unwrap_or_default().trim();
            let is_module = next.starts_with("mod ") || next.starts_with("#[") || next.starts_with("pub mod ");
            assert!(
                line != "#[cfg(test)]" || is_module,
                "{path}:{}: #[cfg(test)] stands before a module alone",
                at + 1
            );
        }
    }
    let (_, tested) = ("node", sources("node/src"));
    for (path, source) in tested {
        let code = code(&source).to_lowercase();
        assert!(!code.contains("simulated_world") && !code.contains("sim_seed"), "{path} knows of the simulated world");
    }
}

#[test]
fn bare_metal_crates_are_no_std() {
    for name in BARE_METAL {
        let source = read(&root().join(name).join("src/lib.rs"));
        assert!(source.contains("#![no_std]"), "{name} is not no_std");
        for (path, source) in sources(&format!("{name}/src")) {
            let code = code(&source);
            for word in ["std::", "async fn", "tokio"] {
                let found = code.match_indices(word).any(|(at, _)| {
                    // `no_std::` and the like are other words.
                    !code.get(..at).unwrap_or_default().ends_with(|c: char| c.is_alphanumeric() || c == '_')
                });
                assert!(!found, "{path} says {word}");
            }
        }
    }
}

#[test]
fn cores_hold_no_runtime() {
    let shells = ["/net/", "/lib.rs", "/config.rs", "/error.rs", "/metrics.rs", "/doors.rs"];
    for room in ["broker", "bridge", "gateway"] {
        for (path, source) in sources(&format!("{room}/src")) {
            let code = code(&source);
            let runs = [".await", "tokio::spawn", "tokio::net"].iter().any(|word| code.contains(word));
            assert!(!runs || shells.iter().any(|shell| path.contains(shell)), "{path} is a core and runs something");
        }
    }
}

#[test]
fn ports_and_other_defaults_stand_in_the_default_configuration_alone() {
    for (path, source) in product() {
        let code = code(&source);
        for port in ["8883", "1883", "8080", "9600", "8443", "8083", "8084"] {
            assert!(!code.contains(port), "{path} names the port {port}; defaults stand in node/src/default.toml");
        }
    }
}

#[test]
fn files_have_one_noun() {
    for (path, source) in product() {
        let lines = source.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines; past {LINES_MAX}, look for the second noun");
    }
}

#[test]
fn nothing_is_left_open() {
    for (path, source) in product() {
        for word in ["todo!", "unimplemented!", "TODO", "FIXME", "allow(dead_code", "allow(unused"] {
            assert!(!source.contains(word), "{path} says {word}");
        }
    }
}
