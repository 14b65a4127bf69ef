"""Drives a running host with the official openai client: chat, stream, tools, JSON schema, logprobs, embeddings, errors."""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "Name the capital of France."}]


def chat():
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.choices[0].finish_reason in ("stop", "length"), answer
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer
    return answer.choices[0].message.content


def stream(whole):
    chunks = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in chunks:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert text == whole, (text, whole)
    assert usage.completion_tokens > 0, usage


def tools():
    weather = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    ask = dict(
        model=MODEL, messages=[{"role": "user", "content": "How is the weather in Paris?"}],
        temperature=0, max_tokens=120, tools=[weather],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    whole = client.chat.completions.create(**ask).choices[0]
    call = whole.message.tool_calls[0]
    assert call.function.name == "get_weather", whole
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city"}, arguments
    name, streamed = "", ""
    for chunk in client.chat.completions.create(**ask, stream=True):
        for delta in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            name += delta.function.name or ""
            streamed += delta.function.arguments or ""
    assert (name, json.loads(streamed)) == ("get_weather", arguments), (name, streamed)
    history = ask["messages"] + [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "12 degrees, rain"},
    ]
    after = client.chat.completions.create(model=MODEL, messages=history, temperature=0, max_tokens=24)
    assert after.choices[0].message.content, after


def json_schema():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "is_capital": {"type": "boolean"}},
        "required": ["city", "is_capital"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )
    value = json.loads(answer.choices[0].message.content)
    assert isinstance(value["is_capital"], bool), value
    free = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0.8, seed=1, max_tokens=200, response_format={"type": "json_object"},
    )
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(free.choices[0].message.content), dict), free


def logprobs():
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=5, logprobs=True, top_logprobs=2,
    )
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content, answer
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in content), content


def completions():
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8)
    assert "Paris" in answer.choices[0].text, answer
    text = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(
            model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=8, stream=True
        )
    )
    assert text == answer.choices[0].text, text


def embeddings():
    answer = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) > 100, answer.usage


def models():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def errors():
    for call, kind in [
        (lambda: client.chat.completions.create(model="ghost", messages=QUESTION), openai.NotFoundError),
        (lambda: client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=7), openai.BadRequestError),
        (lambda: client.chat.completions.create(model=MODEL, messages=[]), openai.BadRequestError),
    ]:
        try:
            call()
        except kind as error:
            assert error.body["message"], error.body
        else:
            raise AssertionError(f"{kind} was expected")


stream(chat())
for check in (tools, json_schema, logprobs, completions, embeddings, models, errors):
    check()
print("all checks passed")
