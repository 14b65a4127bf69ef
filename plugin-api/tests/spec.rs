//! The JSON documents of `SPEC.md`: each schema has an example that fits it, and both fit the Rust types.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};

use pajamas_plugin_api::{
    EmbedParams, GenerateParams, InferParams, LoadSpec, ModelInfo, ModelStats, ProbeReport, Segment,
    SpeakParams, Task, TranscribeParams,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const SPEC: &str = include_str!("../SPEC.md");

/// The documents of a kind (`schema` or `example`), by name.
fn documents(kind: &str) -> BTreeMap<&'static str, Value> {
    let fence = format!("```json {kind} ");
    let blocks = SPEC.split(&fence).skip(1);
    let documents = blocks.map(|block| {
        let (name, rest) = block.split_once('\n').unwrap();
        let (json, _) = rest.split_once("```").unwrap();
        (name.trim(), serde_json::from_str(json).unwrap_or_else(|e| panic!("{kind} {name}: {e}")))
    });
    documents.collect()
}

/// Checks the keywords that the schemas of `SPEC.md` use.
fn check(schema: &Value, value: &Value, place: &str) {
    if let Some(allowed) = schema.get("type") {
        let names: Vec<&str> = match allowed {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect(),
        };
        let is_allowed = names.iter().any(|name| match *name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{place}: this test does not know the type {other}"),
        });
        assert!(is_allowed, "{place}: {value} is not of type {allowed}");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        assert!(values.contains(value), "{place}: {value} is not one of {values:?}");
    }
    if let (Some(items), Some(elements)) = (schema.get("items"), value.as_array()) {
        elements.iter().for_each(|element| check(items, element, place));
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{place} lacks {name}");
    }
    if let (Some(properties), Some(members)) = (schema.get("properties"), value.as_object()) {
        for (name, member) in members {
            let property =
                properties.get(name).unwrap_or_else(|| panic!("{place}.{name} is not in the schema"));
            check(property, member, &format!("{place}.{name}"));
        }
    }
}

#[test]
fn every_schema_has_an_example_that_fits() {
    let (schemas, examples) = (documents("schema"), documents("example"));
    assert_eq!(schemas.keys().collect::<Vec<_>>(), examples.keys().collect::<Vec<_>>());
    for (name, schema) in &schemas {
        check(schema, &examples[name], name);
    }
}

/// The schema has exactly the members of the type, and the example is one.
fn agrees_with<T: Default + Serialize + DeserializeOwned>(name: &str) {
    let of_type = serde_json::to_value(T::default()).unwrap();
    let of_type: BTreeSet<&String> = of_type.as_object().unwrap().keys().collect();
    let schema = &documents("schema")[name];
    let of_schema: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(of_schema, of_type, "{name}");
    serde_json::from_value::<T>(documents("example")[name].clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
}

#[test]
fn schemas_agree_with_the_rust_types() {
    agrees_with::<ProbeReport>("probe");
    agrees_with::<LoadSpec>("load");
    agrees_with::<ModelInfo>("model");
    agrees_with::<ModelStats>("stats");
    agrees_with::<GenerateParams>("generate");
    agrees_with::<EmbedParams>("embed");
    agrees_with::<TranscribeParams>("transcribe");
    agrees_with::<SpeakParams>("speak");
    agrees_with::<InferParams>("infer");
    let segment: Segment = serde_json::from_value(documents("example")["transcribe_result"].clone()).unwrap();
    assert_eq!((segment.end_s, segment.words.len()), (1.84, 1));
}

#[test]
fn every_task_of_the_rust_type_is_described() {
    let schemas = documents("schema");
    let names = [
        "generate",
        "embed",
        "rerank",
        "detect",
        "classify",
        "embed_image",
        "transcribe",
        "speak",
        "infer",
        "tokenize",
    ];
    for name in names {
        assert!(!matches!(Task::from_name(name), Task::Other(_)), "{name} is not a task");
        assert!(
            SPEC.contains(&format!("\n### {name}\n")) && schemas.contains_key(name),
            "{name} is not described"
        );
    }
}

/// V-4 names, for each struct, the last field that every version has.
#[test]
fn the_required_fields_are_those_of_the_layout() {
    let layout = include_str!("layout.txt");
    let mut structs = layout.split("\npj_").map(|text| text.trim_start_matches("pj_")).peekable();
    assert!(structs.peek().is_some());
    for text in structs {
        let (header, fields) = text.split_once('\n').unwrap();
        let words: Vec<&str> = header.split(' ').collect();
        let [name, "size", size, "align", _, "required", required] = words.as_slice() else {
            panic!("{header}")
        };
        if size == required {
            continue;
        }
        let required: usize = required.parse().unwrap();
        let is_required = |field: &&str| {
            field.split(' ').skip_while(|word| *word != "offset").nth(1).unwrap().parse::<usize>().unwrap()
                < required
        };
        let last = fields.lines().take_while(is_required).last().unwrap();
        let field = last.split_whitespace().next().unwrap();
        let sentence = format!("`pj_{name}` up to `{field}`");
        assert!(SPEC.replace("\n", " ").contains(&sentence), "SPEC.md lacks: {sentence}");
    }
}

#[test]
fn safety_comments_cite_rules_that_exist() {
    let mut cited = 0;
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for rule in source.split("SAFETY: SPEC ").skip(1) {
                let number = rule.split([' ', ':']).next().unwrap();
                assert!(
                    SPEC.contains(&format!("**{number}.**")),
                    "{}: there is no rule {number}",
                    path.display()
                );
                cited += 1;
            }
        }
    }
    assert!(cited > 10, "only {cited} citations were found");
}
