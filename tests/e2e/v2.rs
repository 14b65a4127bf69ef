//! The Open Inference Protocol through the `echo` plugin, by hand and by `tritonclient`.

use serde_json::{Value, json};

use crate::harness::{Host, Setup, check_with_python};

/// A model that takes every tensor, and one that declares what it takes.
const TYPED: &str = "[[inputs]]\nname = \"x\"\ndtype = \"f32\"\nshape = [-1, 3]\n\
                     [[inputs]]\nname = \"mask\"\ndtype = \"bool\"\nshape = [2]\n";

fn start() -> Host {
    Setup::echo().model("any.echo", "").model("typed.echo", TYPED).start()
}

fn x(shape: &[i64], data: &Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_is_satisfied() {
    let host = start();
    check_with_python("triton_client.py", &host.url);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metadata_are_told_without_loading() {
    let host = start();
    assert_eq!(host.get("/v2").await.body["name"], "pajamas-host");
    assert_eq!(host.get("/v2/health/live").await.body, json!({"live": true}));
    assert_eq!(host.get("/v2/health/ready").await.body, json!({"ready": true}));
    let typed = host.get("/v2/models/typed/versions/1").await;
    assert_eq!(
        typed.body["inputs"][1],
        json!({"name": "mask", "datatype": "BOOL", "shape": [2]}),
        "{typed:?}"
    );
    assert_eq!(host.get("/v2/models/typed/ready").await.body, json!({"name": "typed", "ready": true}));
    let models = host.get("/admin/models").await;
    let states = models.body["data"].as_array().expect("data").iter().map(|model| &model["state"]);
    assert!(states.into_iter().all(|state| state == "unloaded"), "{models:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_go_in_and_come_out() {
    let host = start();
    let answer = host.post("/v2/models/any/infer", &x(&[2, 2], &json!([[1, 2.5], [3, -4]]))).await;
    let expected = json!({"model_name": "any", "model_version": "1", "outputs": [
        {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.5, 3.0, -4.0]}]});
    assert_eq!((answer.status, &answer.body), (200, &expected), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_one_sentence_in_the_shape_of_the_protocol() {
    let host = Setup::echo().model("any.echo", "").model("typed.echo", TYPED);
    let host = host.config("[limits]\nbody_bytes = 10000\n").start();
    let good = x(&[1], &json!([1]));
    let cases = [
        ("/v2/models/ghost/infer", good.clone(), 404, "ghost"),
        ("/v2/models/any/versions/3/infer", good.clone(), 404, "version"),
        ("/v2/models/any/fly", good.clone(), 404, "/infer"),
        ("/v2/nowhere", good.clone(), 404, "/v2/nowhere"),
        ("/v2/health/live", good.clone(), 405, "POST"),
        ("/v2/models/any/infer", x(&[2], &json!([1])), 400, "input \"x\""),
        ("/v2/models/any/infer", x(&[4000], &json!(vec![1.5; 4000])), 413, "larger"),
        ("/v2/models/typed/infer", good, 400, "\"x\""),
    ];
    for (path, body, status, named) in cases {
        let answer = host.post(path, &body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let error = answer.body["error"].as_str().expect("a sentence");
        assert!(error.contains(named), "{path}: {error}");
        assert_eq!(answer.body.as_object().map(serde_json::Map::len), Some(1), "{answer:?}");
    }
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_key_is_told_in_the_same_shape() {
    let setup = Setup::echo();
    setup.key(&["somebody"]);
    let host = setup.start();
    let answer = host.get("/v2/models/parrot").await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.body["error"].is_string(), "{answer:?}");
    assert_eq!(host.get("/v2/health/live").await.status, 200);
}
