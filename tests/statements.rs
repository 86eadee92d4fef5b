//! `tests/STATEMENTS.md` against the code: every statement is listed, every listed test exists, and
//! every test that is named by a number stands in its row.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const LIST: &str = include_str!("STATEMENTS.md");

/// The sections with the statements that each must list, as prefix and how many.
const SECTIONS: [(&str, &[(&str, usize)]); 4] = [
    (
        "MQTT",
        &[
            ("C", 36),
            ("W", 8),
            ("P", 33),
            ("A", 8),
            ("S", 20),
            ("H", 11),
            ("R", 8),
            ("O", 4),
            ("E", 11),
            ("X", 8),
            ("U", 4),
            ("K", 4),
        ],
    ),
    ("MQTT over QUIC", &[("Q", 18)]),
    ("Kafka", &[("K", 26)]),
    ("The bridge", &[("B", 7)]),
];

/// Section → statement → what its row says.
fn rows() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
    let mut rows: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let mut section = "";
    for line in LIST.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some(row) = line.strip_prefix("| ") {
            let (number, cell) = row.split_once(" | ").unwrap();
            let cell = cell.trim_end_matches(" |");
            if number != "#" {
                let before = rows.entry(section).or_default().insert(number, cell);
                assert!(before.is_none(), "{section}: {number} twice");
            }
        }
    }
    rows
}

/// The names in backticks that are functions: letter, number, underscore.
fn tests_of(cell: &str) -> Vec<&str> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter(|name| number_of(name).is_some()).collect()
}

/// `k14a_what_…` → `K14a`.
fn number_of(name: &str) -> Option<String> {
    let (number, _) = name.split_once('_')?;
    let digits = number.get(1..)?.trim_end_matches('a');
    let letter = number.chars().next()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (is_number && letter.is_ascii_lowercase())
        .then(|| format!("{}{}", letter.to_ascii_uppercase(), &number[1..]))
}

/// Names of the functions right below a test attribute, in all Rust files of a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with(".cache") {
                functions(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            for at in 1..lines.len() {
                let declared = lines[at].trim_start_matches("async ").strip_prefix("fn ");
                if let Some(name) = declared.and_then(|rest| rest.split('(').next())
                    && lines[at - 1].starts_with("#[")
                {
                    found.insert(name.to_owned());
                }
            }
        }
    }
}

#[test]
fn every_statement_is_listed_with_a_test_or_a_reason() {
    let rows = rows();
    for (section, prefixes) in SECTIONS {
        let mut expected: BTreeSet<String> = BTreeSet::new();
        for (prefix, count) in prefixes {
            expected.extend((1..=*count).map(|n| format!("{prefix}{n}")));
        }
        if section == "Kafka" {
            expected.insert("K14a".to_owned());
        }
        let listed: BTreeSet<_> = rows[section].keys().map(|n| (*n).to_owned()).collect();
        assert_eq!(listed, expected, "{section}");
        for (number, cell) in &rows[section] {
            assert!(!cell.is_empty(), "{section}: {number}");
        }
    }
    assert_eq!(rows.len(), SECTIONS.len());
}

#[test]
fn every_listed_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in ["tests", "gateway", "logstore", "meta", "src"] {
        functions(&root.join(folder), &mut found);
    }
    for (section, rows) in rows() {
        for (number, cell) in rows {
            for name in tests_of(cell) {
                assert!(
                    found.contains(name),
                    "{section}: {number} names {name}, which isn't there"
                );
            }
        }
    }
}

#[test]
fn every_numbered_test_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let rows = rows();
    for (folder, sections) in [("mqtt", &["MQTT"][..]), ("kafka", &["Kafka", "The bridge"])] {
        let mut found = BTreeSet::new();
        functions(&root.join(folder), &mut found);
        assert!(found.len() > 50, "{folder}: only {}", found.len());
        for name in found {
            let Some(number) = number_of(&name) else { continue };
            let cell = sections.iter().find_map(|section| rows[section].get(number.as_str()));
            let cell = cell.unwrap_or_else(|| panic!("{name}: there is no {number}"));
            assert!(tests_of(cell).contains(&name.as_str()), "{number} doesn't list {name}");
        }
    }
}
