//! `SPEC.md` and the cases agree: each rule is checked or says why it cannot be, and each case checks rules that exist.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pajamas_conformance::cases;

/// What the text says of one rule.
#[derive(Debug, Default)]
struct Rule {
    cases: BTreeSet<String>,
    is_untestable: bool,
}

/// The rules by number, such as `V-1`.
fn rules() -> BTreeMap<String, Rule> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-api/SPEC.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut rules = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let Some(number) =
            paragraph.strip_prefix("**").and_then(|rest| rest.split_once(".**")).map(|(n, _)| n)
        else {
            continue;
        };
        let checked_by = paragraph.split_once("Checked by:").map_or("", |(_, names)| names);
        let rule = Rule {
            cases: checked_by.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
            is_untestable: paragraph.contains("Not testable: "),
        };
        assert!(rules.insert(number.to_owned(), rule).is_none(), "rule {number} is there twice");
    }
    rules
}

#[test]
fn every_rule_is_checked_or_says_why_not() {
    let rules = rules();
    assert!(rules.len() > 50, "the rules are not found: {rules:?}");
    for (number, rule) in &rules {
        assert_ne!(
            rule.cases.is_empty(),
            !rule.is_untestable,
            "{number}: \"Checked by\" or \"Not testable\" is needed"
        );
    }
}

#[test]
fn spec_and_cases_name_each_other() {
    let in_spec: BTreeSet<(String, String)> = rules()
        .into_iter()
        .flat_map(|(number, rule)| rule.cases.into_iter().map(move |case| (case, number.clone())))
        .collect();
    let in_code: BTreeSet<(String, String)> = cases()
        .iter()
        .flat_map(|case| case.rules.iter().map(|rule| (case.name.to_owned(), (*rule).to_owned())))
        .collect();
    let only_in_spec: Vec<_> = in_spec.difference(&in_code).collect();
    let only_in_code: Vec<_> = in_code.difference(&in_spec).collect();
    assert!(
        only_in_spec.is_empty() && only_in_code.is_empty(),
        "only in SPEC.md: {only_in_spec:?}\nonly in the code: {only_in_code:?}"
    );
}

#[test]
fn case_names_are_kebab_case_and_unique() {
    let mut names = BTreeSet::new();
    for case in cases() {
        let is_kebab_case =
            case.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        assert!(is_kebab_case && !case.rules.is_empty() && names.insert(case.name), "{case:?}");
    }
}
