//! Models from a hub: a local server that speaks its protocol, breaks connections, asks for tokens and lies.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::Setup;

/// SHA-256 of nothing in particular.
const WRONG: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
/// What the only large file holds, and its SHA-256.
const WEIGHTS: &[u8] = b"polly wants a cracker";
const WEIGHTS_SHA256: &str = "7def984e409496c4d4fdb05359986b1547b77f0da0ad2b50a8c2b52288b9621e";

/// A request: path, range, whether a token came along.
type Seen = (String, Option<String>, bool);

/// A hub with the repositories `wren/parrot` (a folder), `wren/networks` (one with a subfolder), `wren/single`, `wren/many`,
/// `wren/liar`, `wren/escape` and `wren/secret`.
struct Hub {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Hub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &log);
            }
        });
        Self { url, seen }
    }

    fn requests(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().expect("log"))
    }
}

fn file(path: &str, size: usize, sha256: Option<&str>, git: &str) -> Value {
    let lfs = sha256.map(|oid| json!({"oid": oid, "size": size, "pointerSize": 130}));
    json!({"type": "file", "oid": git, "size": size, "path": path, "lfs": lfs})
}

/// What the hub has at a path.
fn content(path: &str) -> Option<Vec<u8>> {
    // Git's name of `{}` and a line feed, as `git hash-object` tells it.
    let config = || file("config.json", 3, None, "0967ef424bce6791893e9a57bb952f80fd536e93");
    let weights = |path: &str| file(path, WEIGHTS.len(), Some(WEIGHTS_SHA256), "0");
    let (kind, rest) = path.strip_prefix("/api/models/wren/").map_or(("file", path), |rest| ("api", rest));
    if kind == "file" {
        return match rest.rsplit('/').next()? {
            "config.json" => Some(b"{}\n".to_vec()),
            _ => Some(WEIGHTS.to_vec()),
        };
    }
    let (repository, question) = rest.split_once('/')?;
    let listing = match repository {
        "parrot" if question.ends_with("/docs") => json!([]),
        "parrot" => {
            json!([config(), weights("weights.parrot"), {"type": "directory", "oid": "0", "path": "docs"}])
        }
        "networks" => {
            let folder = ["onnx/model.onnx", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data"].map(weights);
            let own = [config(), json!({"type": "directory", "oid": "0", "path": "onnx"})];
            if question.ends_with("/onnx") { json!(folder) } else { json!(own) }
        }
        "escape" => json!([weights("../../evil.gguf")]),
        "single" | "secret" => json!([weights("single.gguf"), file("README.md", 1, None, "0")]),
        "many" => json!([weights("a.gguf"), weights("b.gguf")]),
        "liar" => json!([file("liar.gguf", WEIGHTS.len(), Some(WRONG), "0")]),
        _ => return None,
    };
    let answer = if question.starts_with("revision/main") { json!({"sha": "c0ffee"}) } else { listing };
    Some(answer.to_string().into_bytes())
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<Seen>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let header = |name: &str| {
        headers.iter().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned())
    };
    let (range, token) = (header("range:"), header("authorization:"));
    log.lock().expect("log").push((path.clone(), range.clone(), token.is_some()));
    let body = match content(&path) {
        _ if path.contains("secret") && token.as_deref() != Some("bearer letmein") => Err("401 Unauthorized"),
        None => Err("404 Not Found"),
        Some(body) => Ok(body),
    };
    let response = match body {
        Err(status) => {
            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
        }
        Ok(body) => {
            let begin: usize = range
                .as_deref()
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
                .unwrap_or(0);
            let status = if begin > 0 { "206 Partial Content" } else { "200 OK" };
            let rest = &body[begin.min(body.len())..];
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {begin}-{}/{}\r\nconnection: close\r\n\r\n",
                rest.len(),
                body.len().saturating_sub(1),
                body.len()
            );
            // Of a large file, the first connection breaks after five bytes.
            let sent = if body == WEIGHTS && begin == 0 { &rest[..5] } else { rest };
            [head.as_bytes(), sent].concat()
        }
    };
    // Whoever asked may be gone.
    let _ = stream.write_all(&response);
}

#[test]
fn a_model_is_pulled_over_broken_connections_and_verified() {
    let hub = Hub::start();
    let setup = Setup::new();
    let pull = |model: &str| setup.run(&["models", "pull", model, "--endpoint", &hub.url]);
    let pulled = pull("hf:wren/parrot");
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    assert!(pulled.stdout.contains("hf:wren/parrot at c0ffee is in"), "{pulled:?}");
    assert_eq!(std::fs::read(setup.path("models/wren/parrot/weights.parrot")).expect("weights"), WEIGHTS);
    assert_eq!(std::fs::read(setup.path("models/wren/parrot/config.json")).expect("config"), b"{}\n");
    let resumed = hub.requests().into_iter().filter_map(|(_, range, _)| range).collect::<Vec<_>>();
    assert_eq!(resumed, ["bytes=5-"]);
    // What is there is not fetched again.
    assert_eq!(pull("hf:wren/parrot").code, Some(0));
    assert!(hub.requests().iter().all(|(path, _, _)| path.starts_with("/api/")));

    let networks = pull("hf:wren/networks:onnx/model_q4.onnx");
    assert!(networks.stdout.contains("(3 files, "), "{networks:?}");
    for file in ["config.json", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data"] {
        assert!(setup.path(&format!("models/wren/networks/{file}")).is_file(), "{file}");
    }
    let listed = setup.run(&["models", "list"]);
    assert!(listed.stdout.contains("networks  onnx"), "{listed:?}");

    let single = pull("hf:wren/single");
    assert_eq!(single.code, Some(0), "{single:?}");
    assert_eq!(std::fs::read(setup.path("models/single.gguf")).expect("model"), WEIGHTS);
    let listed = setup.run(&["models", "list"]);
    assert!(listed.stdout.contains("single    gguf"), "{listed:?}");
    let removed = setup.run(&["models", "rm", "single"]);
    assert_eq!(
        (removed.code, removed.stdout.as_str()),
        (Some(0), "single is removed, 21 B are free again\n")
    );
    assert!(!setup.path("models/single.gguf").exists());
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let hub = Hub::start();
    let setup = Setup::new().file("models/single.gguf", "polly wants a lawyer.");
    let table: [(&str, i32, &str); 8] = [
        ("wren/parrot", 64, "expected hf:ORG/REPO"),
        ("hf:wren/dodo", 66, "dodo"),
        ("hf:wren/many", 66, "name one: hf:ORG/REPO:FILE; there are: a.gguf, b.gguf"),
        ("hf:wren/many:c.gguf", 66, "does not have that file"),
        ("hf:wren/escape", 65, "\"../../evil.gguf\", which lies outside of the repository"),
        ("hf:wren/liar", 65, "is not the file that the hub lists"),
        ("hf:wren/single", 74, "is there already, and is another file"),
        ("hf:wren/secret", 69, "HF_TOKEN"),
    ];
    for (model, code, words) in table {
        let finished = setup.run(&["models", "pull", model, "--endpoint", &hub.url]);
        assert_eq!(finished.code, Some(code), "{model}: {finished:?}");
        assert!(finished.stderr.contains(words), "{model}: {finished:?}");
    }
    assert!(!setup.path("models/liar.gguf").exists());
    hub.requests();
    let mut opened =
        setup.command(&["models", "pull", "hf:wren/secret", "--endpoint", &hub.url, "--to", "opened"]);
    let opened = opened.env("HF_TOKEN", "letmein").output().expect("pull runs");
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    assert!(hub.requests().iter().all(|(_, _, has_token)| *has_token));
    let nobody = setup.run(&["models", "pull", "hf:wren/parrot", "--endpoint", "http://127.0.0.1:9"]);
    assert_eq!(nobody.code, Some(69), "{nobody:?}");
}
