"""Drives a running host with the official openai client and real models: transcriptions and speech, whole and streamed."""

import io
import json
import sys
import wave

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
STT, TTS = "whisper-tiny.en", "piper-joe"
TEXT = "The quick brown fox jumps over the lazy dog. It was a bright cold day in April."
WORDS = {"quick", "brown", "fox", "dog", "bright", "cold", "day", "april"}


def words(text):
    return {word.strip(".,!?;:").lower() for word in text.split()}


def speech():
    """The sound of TEXT, which the other checks listen to."""
    sound = client.audio.speech.create(model=TTS, voice="", input=TEXT, response_format="wav").content
    frames = wave.open(io.BytesIO(sound)).getframerate()
    assert 8_000 <= frames <= 48_000, frames
    with client.audio.speech.with_streaming_response.create(
        model=TTS, voice="", input=TEXT, response_format="pcm", speed=2.0
    ) as answer:
        chunks = list(answer.iter_bytes())
    # 24 000 samples of 16 bits a second, spoken in 1 to 8 seconds.
    assert 48_000 < sum(map(len, chunks)) < 8 * 48_000, sum(map(len, chunks))
    for format, magic in (("flac", b"fLaC"), ("opus", b"OggS")):
        start = client.audio.speech.create(model=TTS, voice="", input="Hello.", response_format=format).content[:4]
        assert start == magic, (format, start)
    return sound


def speech_events():
    with client.audio.speech.with_streaming_response.create(
        model=TTS, voice="", input=TEXT, response_format="pcm", stream_format="sse"
    ) as answer:
        data = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    types = [json.loads(event)["type"] for event in data]
    assert types[-1] == "speech.audio.done" and set(types[:-1]) == {"speech.audio.delta"}, types


def transcriptions(sound):
    ask = dict(model=STT, file=("speech.wav", sound), temperature=0)
    answer = client.audio.transcriptions.create(**ask)
    assert len(WORDS & words(answer.text)) >= 6, answer
    assert answer.usage.type == "duration" and answer.usage.seconds >= 3, answer
    text = client.audio.transcriptions.create(**ask, response_format="text")
    assert text.strip() == answer.text, text
    assert client.audio.transcriptions.create(**ask, response_format="srt").startswith("1\n00:00:0")
    assert client.audio.transcriptions.create(**ask, response_format="vtt").startswith("WEBVTT\n\n00:00:0")
    verbose = client.audio.transcriptions.create(
        **ask, response_format="verbose_json", timestamp_granularities=["segment", "word"]
    )
    assert verbose.duration > 3 and verbose.segments and verbose.text == answer.text, verbose
    assert len(WORDS & {word for timed in verbose.words for word in words(timed.word)}) >= 6, verbose.words
    starts = [word.start for word in verbose.words]
    assert starts == sorted(starts) and starts[-1] <= verbose.duration, starts
    events = list(client.audio.transcriptions.create(**ask, stream=True))
    assert events[-1].type == "transcript.text.done" and events[-1].text == answer.text, events
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert deltas == answer.text, deltas


def errors(sound):
    for call, named in [
        (lambda: client.audio.transcriptions.create(model=STT, file=("x.wav", b"RIFFnonsense")), "file"),
        (lambda: client.audio.transcriptions.create(model=STT, file=("x.wav", sound), temperature=7), "temperature"),
        (lambda: client.audio.transcriptions.create(model=TTS, file=("x.wav", sound)), "model"),
        (lambda: client.audio.speech.create(model=TTS, voice="nobody", input="Hello."), "voice"),
        (lambda: client.audio.speech.create(model=TTS, voice="", input="Hello.", response_format="mp3"), "format"),
    ]:
        try:
            call()
        except openai.BadRequestError as error:
            assert named in error.body["message"], error.body
        else:
            raise AssertionError(f"an error that names {named} was expected")


SOUND = speech()
speech_events()
transcriptions(SOUND)
errors(SOUND)
print("all checks passed")
