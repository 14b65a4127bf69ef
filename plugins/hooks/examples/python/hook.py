"""A hook that replaces the terms of a glossary, in what people ask and in what models answer.

Its configuration: `terms`, a table of each term and what stands for it.
"""

import json
from functools import cache

from componentize_py_types import Err
from glossary import Glossary, Stream
from wit_world import exports
from wit_world.exports.info import Description
from wit_world.exports.text import Message, Piece, Piece_Change, Piece_Pass, Verdict, Verdict_Change, Verdict_Pass
from wit_world.imports import config, log
from wit_world.imports.types import Context

# The stream of each answer. It may be global: the host makes one instance of a hook for each request.
streams: dict[int, Stream] = {}


# Read at the first call, not on import: this module is imported once, when the component is built.
@cache
def glossary() -> Glossary:
    terms = json.loads(config.get()).get("terms")
    if not isinstance(terms, dict) or not terms:
        raise Err("`terms` must be a table of terms and what stands for them")
    for term, replacement in terms.items():
        if not term or not isinstance(replacement, str):
            raise Err(f"`terms.{term}` must be a text, and the term not empty")
    return Glossary(terms)


class Info(exports.Info):
    def describe(self) -> Description:
        terms = glossary().terms
        log.write(log.Level.DEBUG, f"{len(terms)} terms")
        return Description("glossary", "0.1.0", "Replaces the terms of a glossary.")


class Text(exports.Text):
    def input(self, context: Context, messages: list[Message]) -> Verdict:
        changed = [
            Message(number, message.role, glossary().replace(message.content))
            for number, message in enumerate(messages)
        ]
        if all(new.content == old.content for new, old in zip(changed, messages)):
            return Verdict_Pass()
        log.write(log.Level.INFO, f"replaced terms in a request to {context.task}")
        return Verdict_Change(changed)

    def output(self, context: Context, answer: int, text: str, last: bool) -> Piece:
        if answer not in streams:
            streams[answer] = Stream(glossary())
        released = streams[answer].feed(text, last)
        return Piece_Pass() if released == text else Piece_Change(released)
