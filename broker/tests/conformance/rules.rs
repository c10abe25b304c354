//! `tests/rules`: the changes that take rules out still fit the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Name, file, test, and what stands in the file.
fn mutations() -> Vec<[&'static str; 4]> {
    let blocks = include_str!("../rules/mutations.txt").split("\n== ").skip(1);
    let of_block = |block: &'static str| {
        let mut lines = block.splitn(4, '\n');
        let mut next = || lines.next().expect("four parts");
        let [name, file, test, body] = [next(), next(), next(), next()];
        [name, file, test, body.split_once("\n--\n").expect("what stands there, and what is put there").0]
    };
    blocks.map(of_block).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

#[test]
fn every_change_that_takes_a_rule_out_fits_the_source_once() {
    let mutations = mutations();
    let names: BTreeSet<_> = mutations.iter().map(|[name, ..]| name).collect();
    assert!(names.len() == mutations.len() && names.len() >= 30, "{names:?}");
    for [name, file, _, before] in mutations {
        let times = read(&format!("src/{file}")).matches(before).count();
        assert_eq!(times, 1, "{name}: how often its text stands in {file}");
    }
}

#[test]
fn every_rule_that_is_taken_out_has_its_test_and_a_row_that_says_it_failed() {
    let table = read("tests/rules/README.md");
    for [name, _, test, _] in mutations() {
        let (module, function) = test.split_once("::").expect("a module and a function");
        let declared = format!("fn {function}()");
        assert!(read(&format!("tests/conformance/{module}.rs")).contains(&declared), "{name}: {test}");
        let row = table.lines().find(|line| line.starts_with(&format!("| **{name}** |")));
        assert!(row.is_some_and(|row| row.contains(&format!("| `{test}`"))), "{name}: its row in README.md");
    }
}
