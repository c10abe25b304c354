//! `tests/defences`: the changes that take defences against an outside broker out still fit the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Name, file, scenario, and what stands in the file.
fn mutations() -> Vec<[&'static str; 4]> {
    let blocks = include_str!("../../../defences/mutations.txt").split("\n== ").skip(1);
    let of_block = |block: &'static str| {
        let mut lines = block.splitn(4, '\n');
        let mut next = || lines.next().expect("four parts");
        let [name, file, test, body] = [next(), next(), next(), next()];
        [name, file, test, body.split_once("\n--\n").expect("what stands there, and what is put there").0]
    };
    blocks.map(of_block).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect(path)
}

#[test]
fn every_change_that_takes_a_defence_out_fits_the_source_once() {
    let mutations = mutations();
    let names: BTreeSet<_> = mutations.iter().map(|[name, ..]| name).collect();
    assert!(names.len() == mutations.len() && names.len() >= 12, "{names:?}");
    for [name, file, _, before] in mutations {
        assert_eq!(read(file).matches(before).count(), 1, "{name}: how often its text stands in {file}");
    }
}

#[test]
fn every_defence_that_is_taken_out_has_its_scenario_and_a_row_that_says_it_failed() {
    let (table, scenarios) = (read("tests/defences/README.md"), read("tests/tests/it/outside.rs"));
    for [name, _, test, _] in mutations() {
        assert!(scenarios.contains(&format!("async fn {test}(")), "{name}: {test}");
        let row = table.lines().find(|line| line.starts_with(&format!("| **{name}** |")));
        assert!(row.is_some_and(|row| row.contains(&format!("| `{test}` "))), "{name}: its row in README.md");
    }
}
