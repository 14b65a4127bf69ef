//! Which message a chat gets in each mode.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use hook_system_prompt::{Message, Rules};

/// `role:content`, with the number of the client's message in front where it is one.
fn messages(texts: &[&str]) -> Vec<Message> {
    let message = |(number, text): (usize, &&str)| {
        let (role, content) = text.split_once(':').unwrap();
        Message { source: u32::try_from(number).ok(), role: role.to_owned(), content: content.to_owned() }
    };
    texts.iter().enumerate().map(message).collect()
}

fn applied(json: &str, task: &str, texts: &[&str]) -> Option<Vec<String>> {
    let show = |message: Message| {
        let source = message.source.map_or("new".to_owned(), |number| number.to_string());
        format!("{source} {}:{}", message.role, message.content)
    };
    let changed = Rules::parse(json).unwrap().apply(task, "m", messages(texts))?;
    Some(changed.into_iter().map(show).collect())
}

#[test]
fn each_mode_does_what_it_says() {
    let chat = ["user:hi"];
    let with_system = ["system:client", "user:hi", "developer:more"];
    for (mode, expected) in [
        ("insert", None),
        ("prepend", Some(vec!["0 system:own\n\nclient", "1 user:hi", "2 developer:more"])),
        ("append", Some(vec!["0 system:client\n\nown", "1 user:hi", "2 developer:more"])),
        ("override", Some(vec!["new system:own", "1 user:hi"])),
    ] {
        let json = format!(r#"{{"text": "own", "mode": "{mode}"}}"#);
        let expected = expected.map(|lines| lines.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(applied(&json, "generate", &with_system), expected, "{mode}");
        let inserted = Some(vec!["new system:own".to_owned(), "0 user:hi".to_owned()]);
        assert_eq!(applied(&json, "generate", &chat), inserted, "{mode}");
    }
}

#[test]
fn only_chats_are_changed() {
    let json = r#"{"text": "own"}"#;
    assert_eq!(applied(json, "generate", &["prompt:hi"]), None);
    assert_eq!(applied(json, "embed", &["input:hi"]), None);
    assert_eq!(applied(json, "generate", &[]), None);
}

#[test]
fn a_models_own_text_comes_first_and_an_empty_one_means_none() {
    let own = r#"{"text": "all", "by_model": {"m": "one"}}"#;
    assert_eq!(applied(own, "generate", &["user:hi"]).unwrap()[0], "new system:one");
    let other = r#"{"text": "all", "by_model": {"x": "one"}}"#;
    assert_eq!(applied(other, "generate", &["user:hi"]).unwrap()[0], "new system:all");
    let none = r#"{"text": "all", "by_model": {"m": ""}}"#;
    assert_eq!(applied(none, "generate", &["user:hi"]), None);
}

#[test]
fn a_wrong_configuration_says_what_is_wrong() {
    for (json, error) in [
        ("{}", "nothing to say; set `text`, `by_model` or both"),
        (r#"{"text": "a", "by_model": {"m": 1}}"#, "`by_model.m` is 1; expected a text"),
        (
            r#"{"text": "a", "mode": "x"}"#,
            "`mode` is \"x\"; expected one of `insert`, `prepend`, `append`, `override`",
        ),
    ] {
        assert_eq!(Rules::parse(json).unwrap_err(), error, "{json}");
    }
}
