//! Text from an ONNX decoder: SmolLM2 in the onnx plugin.

use serde_json::json;

use crate::harness::{Setup, joined};

const MODEL: &str = "smollm2-onnx";

#[tokio::test(flavor = "multi_thread")]
async fn a_decoder_answers_at_once_and_as_a_stream() {
    let Some(setup) = Setup::real(MODEL) else { return };
    let host = setup.start();
    let body = |question: &str, stream: bool| {
        json!({
            "model": MODEL, "temperature": 0, "max_tokens": 24, "stream": stream,
            "messages": [{"role": "user", "content": question}],
        })
    };
    let question = "Name the capital of France.";
    let answer = host.post("/v1/chat/completions", &body(question, false)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains("Paris"), "{answer:?}");
    // Beside another one, and word for word.
    let (count, ask) = (body("Count from one to ten.", true), body(question, true));
    let (other, same) =
        tokio::join!(host.stream("/v1/chat/completions", &count), host.stream("/v1/chat/completions", &ask),);
    assert_eq!(joined(&same), answer.text());
    assert!(same.len() > 5, "{same:?}");
    assert!(joined(&other).contains('2'), "{other:?}");
    // It has no vectors, and says what it has.
    let refused = host.post("/v1/embeddings", &json!({"model": MODEL, "input": "x"})).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.error().contains("generate"), "{refused:?}");
}
