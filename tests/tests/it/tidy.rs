//! The plan of the code, held by a test: who may import whom, and what may stand where.
//!
//! Reads every `Cargo.toml` and every source file of the workspace. ARCHITECTURE.md has the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

mod conformance;
mod source;

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

/// Crates whose shells are their `net/` and their `lib.rs`; everything else in them is a core.
const ROOMS: [&str; 7] = ["core", "e2ee", "broker", "bridge", "gateway", "certs", "device-sdk"];

/// The ports of the table, built and reserved.
const PORTS: [&str; 7] = ["8883", "1883", "8080", "9600", "8443", "8083", "8084"];

/// Where a write is known to have completed: the one place of each storage.
const DURABILITY: [&str; 4] =
    ["core/src/durable.rs", "store/src/embedded/writer.rs", "store/src/memory.rs", "device-sdk/src/storage.rs"];

/// The conditions that name tests beside the modules that are tests: the store's faults on demand,
/// and what is fuzzed. Both are features that the product does not ask for.
const ON_DEMAND: [(&str, &str); 2] =
    [("store/src/embedded/", "any(test, feature = \"faults\")"), ("broker/src/", "any(test, feature = \"fuzzing\")")];

/// Beside `net/` and `lib.rs`, what waits: the broker's part of the table of sessions, and the way to
/// the store.
const WAITING: [&str; 2] = ["broker/src/sessions.rs", "broker/src/persist/"];

/// The longest file: past it, look for the second noun.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    read(&path).parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A crate's dependencies in one table of its manifest.
fn dependencies(manifest: &toml::Table, table: &str) -> toml::Table {
    manifest.get(table).and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

/// Every `.rs` file below `folder`, by its path from the workspace root.
fn files(folder: &str) -> BTreeMap<String, String> {
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

/// What is compiled into a crate when it is no test.
fn product_of(name: &str) -> BTreeMap<String, Source> {
    let read = files(&format!("{name}/src")).into_iter().map(|(path, text)| (path, Source::read(&text)));
    let mut sources: BTreeMap<String, Source> = read.collect();
    let tests: Vec<String> = sources
        .iter()
        .flat_map(|(path, source)| source.test_files.iter().map(|module| module_path(path, module)))
        .collect();
    sources.retain(|path, _| {
        !tests.iter().any(|test| path.strip_prefix(test).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    });
    sources
}

/// Where the module lies that the source at `path` declares, without its `.rs`.
fn module_path(path: &str, module: &str) -> String {
    let folder = ["/lib.rs", "/main.rs", "/mod.rs", ".rs"].into_iter().find_map(|end| path.strip_suffix(end));
    format!("{}/{module}", folder.unwrap_or(path))
}

fn product() -> BTreeMap<String, Source> {
    MAY_IMPORT.iter().filter(|(name, _)| *name != "tests").flat_map(|(name, _)| product_of(name)).collect()
}

/// Fails with all that was found wrong, not with the first of it.
fn none(found: impl IntoIterator<Item = String>, rule: &str) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn imports_point_down() {
    let members = read(&root().join("Cargo.toml"));
    let mut found = Vec::new();
    for (name, allowed) in MAY_IMPORT {
        assert!(members.contains(&format!("\"{name}\"")), "{name} is no member of the workspace");
        let manifest = manifest(name);
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = dependencies(&manifest, table);
            let ours = dependencies.keys().filter_map(|key| key.strip_prefix("unhidra-"));
            let wrong = ours.filter(|dependency| !allowed.contains(dependency));
            found.extend(wrong.map(|dependency| format!("{name} imports {dependency} in [{table}]")));
        }
    }
    none(found, "an import points down, as MAY_IMPORT says");
}

#[test]
fn every_dependency_is_declared_in_the_workspace_table() {
    let mut found = Vec::new();
    for (name, _) in MAY_IMPORT {
        let manifest = manifest(name);
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let wrong =
                dependencies(&manifest, table).into_iter().filter(|(_, value)| value.get("workspace").is_none());
            found.extend(wrong.map(|(dependency, _)| format!("{name} gives {dependency} a version of its own")));
        }
    }
    none(found, "versions stand once, in the workspace table");
}

#[test]
fn every_dependency_is_used() {
    let mut unused: BTreeSet<String> =
        dependencies(&dependencies_of_the_workspace(), "dependencies").keys().cloned().collect();
    let mut found = Vec::new();
    for (name, _) in MAY_IMPORT {
        let manifest = manifest(name);
        let product: BTreeSet<String> = product_of(name).values().flat_map(Source::words).collect();
        let all: BTreeSet<String> = files(name).values().flat_map(|text| words(text)).collect();
        for (table, words) in [("dependencies", &product), ("dev-dependencies", &all)] {
            for dependency in dependencies(&manifest, table).keys() {
                unused.remove(dependency);
                if !words.contains(&dependency.replace('-', "_")) && name != "tests" {
                    found.push(format!("{name} does not use {dependency}, which is in its [{table}]"));
                }
            }
        }
    }
    found.extend(unused.into_iter().map(|dependency| format!("no crate asks for {dependency}")));
    none(found, "what is not used is not declared");
}

fn dependencies_of_the_workspace() -> toml::Table {
    manifest(".").get("workspace").and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

/// The words of a file, its tests' among them.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect()
}

#[test]
fn faults_on_demand_are_asked_for_by_tests_alone() {
    let asks = |name: &str| {
        let store = dependencies(&manifest(name), "dependencies").get("unhidra-store").cloned();
        store
            .and_then(|store| store.get("features").cloned())
            .is_some_and(|features| features.to_string().contains("faults"))
    };
    let product = MAY_IMPORT.iter().map(|(name, _)| *name).filter(|name| *name != "tests");
    none(product.filter(|name| asks(name)).map(str::to_owned), "the product is built without faults on demand");
}

#[test]
fn the_node_calls_the_device_sdk_from_the_simulated_devices_and_enrolment_alone() {
    let allowed = ["node/src/cli/simulate", "node/src/cli/demo", "node/src/cli/enroll"];
    let calls = |source: &Source| source.words().iter().any(|word| word == "unhidra_device_sdk");
    let callers = product_of("node").into_iter().filter(|(_, source)| calls(source)).map(|(path, _)| path);
    none(
        callers.filter(|path| !allowed.iter().any(|prefix| path.starts_with(prefix))),
        "the node serves devices; those that are devices themselves live in the simulation",
    );
}

#[test]
fn durability_is_claimed_where_it_is_made_alone() {
    let claims = |source: &Source| source.words().iter().any(|word| word == "new_for_storage");
    let claimed: Vec<String> =
        product().into_iter().filter(|(_, source)| claims(source)).map(|(path, _)| path).collect();
    let mut allowed = DURABILITY.map(str::to_owned);
    allowed.sort();
    assert_eq!(claimed, allowed, "who says that a write is durable");
}

#[test]
fn no_branch_of_the_product_knows_of_tests() {
    let mut found = Vec::new();
    for (path, source) in product() {
        let whole = source.whole();
        for (at, _) in whole.match_indices("cfg(").chain(whole.match_indices("cfg!(")) {
            let condition = inside_parentheses(whole.get(at..).unwrap_or_default());
            let names_tests = words(condition).iter().any(|word| word == "test");
            let is_asked_for = ON_DEMAND.iter().any(|(room, feature)| path.starts_with(room) && condition == *feature);
            if names_tests && !is_asked_for {
                found.push(format!("{path}: {condition}"));
            }
        }
    }
    none(found, "#[cfg(test)] stands before a module alone");
    let world = ["simulated_world", "sim_seed"];
    let node = product_of("node").into_iter();
    let knowing = node.filter(|(_, source)| world.iter().any(|word| source.whole().to_lowercase().contains(word)));
    none(knowing.map(|(path, _)| path), "the node does not know of the simulated world");
}

/// What is between the first parenthesis and the one that closes it.
fn inside_parentheses(text: &str) -> &str {
    let mut depth = 0_usize;
    let begin = text.find('(').map_or(text.len(), |at| at + 1);
    let end = text.find(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ')' && depth == 0
    });
    text.get(begin..end.unwrap_or(text.len())).unwrap_or_default()
}

#[test]
fn bare_metal_crates_are_no_std() {
    let mut found = Vec::new();
    for name in BARE_METAL {
        let sources = product_of(name);
        let no_std = sources.get(&format!("{name}/src/lib.rs")).is_some_and(|lib| lib.code().contains("#![no_std]"));
        if !no_std {
            found.push(format!("{name} is not no_std"));
        }
        for (path, source) in sources {
            let words = source.words();
            let host = ["std", "async", "tokio"].into_iter().filter(|host| words.iter().any(|word| word == host));
            found.extend(host.map(|host| format!("{path} says {host}")));
        }
    }
    none(found, "bare metal has no operating system and no runtime");
}

#[test]
fn cores_hold_no_runtime() {
    let mut found = Vec::new();
    for room in ROOMS {
        let mut shells = vec![format!("{room}/src/lib.rs"), format!("{room}/src/net/")];
        shells.extend(WAITING.map(str::to_owned));
        for (path, source) in product_of(room) {
            if shells.iter().any(|shell| path.starts_with(shell)) {
                continue;
            }
            let code = source.code();
            let words = source.words();
            let runs = ["async", "await", "spawn"].into_iter().filter(|run| words.iter().any(|word| word == run));
            found.extend(runs.map(|word| format!("{path} says {word}")));
            let calls = ["tokio::net", "tokio::time", "std::net::Tcp", "std::thread"];
            found
                .extend(calls.into_iter().filter(|call| code.contains(call)).map(|call| format!("{path} says {call}")));
        }
    }
    none(found, "async, sockets and spawn live in net/ and lib.rs");
}

/// A default is a number, or a text that is a value: prose with a port in it is an example.
#[test]
fn ports_and_other_defaults_stand_in_the_default_configuration_alone() {
    let mut found = Vec::new();
    for (path, source) in product() {
        let numbers = source.words().into_iter().map(|word| word.replace('_', "").trim_end_matches("u16").to_owned());
        let texts = source.literals().into_iter().filter(|text| !text.contains(char::is_whitespace));
        let texts = texts.flat_map(|text| words(&text));
        let ports = numbers.chain(texts).filter(|word| PORTS.contains(&word.as_str()));
        found.extend(ports.map(|port| format!("{path} names the port {port}")));
    }
    none(found, "defaults stand in node/src/default.toml");
}

#[test]
fn files_have_one_noun() {
    let mut found = Vec::new();
    for (name, _) in MAY_IMPORT {
        let lines = files(&format!("{name}/src")).into_iter().map(|(path, text)| (path, text.lines().count()));
        let long = lines.filter(|(_, lines)| *lines > LINES_MAX);
        found.extend(long.map(|(path, lines)| format!("{path} has {lines} lines")));
    }
    none(found, &format!("past {LINES_MAX} lines, look for the second noun"));
}

#[test]
fn nothing_is_left_open() {
    let mut found = Vec::new();
    for (name, _) in MAY_IMPORT {
        // The words themselves stand in this file.
        let others = files(name).into_iter().filter(|(path, _)| path != "tests/tests/it/tidy.rs");
        for (path, text) in others {
            let open = ["todo!", "unimplemented!", "TODO", "FIXME"];
            // A double that several tests share may hold more than each of them asks for.
            let unused = ["allow(dead_code", "allow(unused"];
            let unused = unused.into_iter().filter(|_| path.starts_with(&format!("{name}/src/")));
            let says = open.into_iter().chain(unused).filter(|word| text.contains(word));
            found.extend(says.map(|word| format!("{path} says {word}")));
        }
    }
    none(found, "what is not done is an issue");
}

#[test]
fn a_module_lies_where_the_compiler_looks_for_it() {
    assert_eq!(module_path("store/src/lib.rs", "contract"), "store/src/contract");
    assert_eq!(module_path("store/src/embedded/mod.rs", "tests"), "store/src/embedded/tests");
    assert_eq!(module_path("store/src/ledger.rs", "tests"), "store/src/ledger/tests");
}
