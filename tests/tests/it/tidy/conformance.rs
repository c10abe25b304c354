//! `broker/CONFORMANCE.md`: every statement of the standards once, and every test it names exists.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, none, read, root};

/// Where a test is that is named without a folder.
const TESTS: &str = "broker/tests/conformance";

/// The statements of each version, by its name in `statements.txt`.
fn statements() -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut version = String::new();
    for line in include_str!("statements.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((section, range)) = line.split_once(' ') else {
            version = line.to_owned();
            continue;
        };
        let (first, last) = range.split_once('-').unwrap_or_else(|| panic!("{line}"));
        let number = |text: &str| text.parse::<u32>().unwrap_or_else(|e| panic!("{line}: {e}"));
        let of_section = (number(first)..=number(last)).map(|number| format!("{section}-{number}"));
        versions.entry(version.clone()).or_default().extend(of_section);
    }
    versions
}

/// The document's part about a version.
fn part(document: &str, version: &str) -> String {
    let title = format!("## MQTT {version}\n");
    let (_, part) = document.split_once(&title).unwrap_or_else(|| panic!("no part {title}"));
    part.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The numbers in a line, without the rest of `[MQTT-...]`.
fn numbers(line: &str) -> impl Iterator<Item = &str> {
    line.split("[MQTT-").skip(1).filter_map(|rest| rest.split(']').next())
}

/// What stands between backticks and names a test.
fn tests(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|named| named.split_once("::"))
}

/// Whether a file has a test of this name.
fn has_test(text: &str, name: &str) -> bool {
    let declares = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        let mut attributes = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with("#["));
        declares(line) && attributes.any(|line| line.contains("test]") || line.contains("::test("))
    })
}

#[test]
fn every_statement_stands_once_in_the_table_of_its_version() {
    let document = read(&root().join("broker/CONFORMANCE.md"));
    let mut found = Vec::new();
    for (version, statements) in statements() {
        let part = part(&document, &version);
        let rows = part.lines().filter(|line| line.starts_with("| [MQTT-") || line.starts_with("Clients alone:"));
        let mut stands: BTreeMap<&str, usize> = BTreeMap::new();
        let of_row = |row| {
            // What a row says may name other statements; its first cell is its own.
            let own = if str::starts_with(row, "| ") { 1 } else { usize::MAX };
            numbers(row).take(own)
        };
        rows.flat_map(of_row).for_each(|number| *stands.entry(number).or_default() += 1);
        for number in &statements {
            let times = stands.remove(number.as_str()).unwrap_or_default();
            if times != 1 {
                found.push(format!("{version}: {number} stands {times} times"));
            }
        }
        found.extend(stands.into_keys().map(|number| format!("{version}: {number} is no statement")));
    }
    none(found, "broker/CONFORMANCE.md has every statement once");
}

#[test]
fn every_statement_names_tests_that_exist_or_says_why_it_cannot() {
    let document = read(&root().join("broker/CONFORMANCE.md"));
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut found = Vec::new();
    for row in document.lines().filter(|line| line.starts_with("| [MQTT-")) {
        let held = row.split(" | ").nth(2).unwrap_or_default().trim_end_matches('|').trim();
        let reason = held.strip_prefix("no test: ");
        if reason.is_some_and(|reason| reason.len() < 10) || reason.is_none() && tests(held).next().is_none() {
            found.push(format!("neither a test nor a reason: {row}"));
        }
        for (file, name) in tests(held) {
            let path = if file.contains('/') && !file.starts_with("malformed/") {
                file.to_owned()
            } else {
                format!("{TESTS}/{file}")
            };
            let text = files.entry(path.clone()).or_insert_with_key(|path| read(&root().join(path)));
            if !has_test(text, name) {
                found.push(format!("{path} has no test {name}"));
            }
        }
    }
    none(found, "broker/CONFORMANCE.md names tests that exist");
}

/// Time is what many statements are about, and the machine's own would make tests of them slow, or fail.
#[test]
fn the_brokers_tests_that_let_time_pass_do_so_on_a_clock_that_stands_still() {
    let mut found = Vec::new();
    for (path, text) in files("broker/tests") {
        // Helpers of theirs sleep too, so all of these stand on such a clock.
        let lets_time_pass = path.starts_with(TESTS) || text.contains("sleep(");
        let tests = text.match_indices("#[tokio::test").map(|(at, _)| text[at..].lines().next().unwrap_or_default());
        let wrong = tests.filter(|attribute| lets_time_pass && !attribute.contains("start_paused = true"));
        found.extend(wrong.map(|attribute| format!("{path}: {attribute}")));
    }
    none(found, "a test that sleeps has `start_paused = true`");
}
