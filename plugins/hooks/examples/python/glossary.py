"""Replacing terms in text that comes whole or in pieces. Knows nothing of hooks, so that it can be tested by itself."""

import re


class Glossary:
    """Terms and what stands for them. A term is found as a whole word, in the case it is written in."""

    def __init__(self, terms: dict[str, str]):
        self.terms = terms
        # The longest first, so that "New York Times" is not taken for "New York".
        words = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")
        self._longest = max(map(len, terms))

    def replace(self, text: str) -> str:
        return self._pattern.sub(lambda found: self.terms[found[0]], text)

    def next_match(self, text: str, start: int) -> re.Match[str] | None:
        return self._pattern.search(text, start)

    def undecided(self, text: str, start: int) -> int:
        """Where the end of the text begins that more text could make a term: the text's length when nothing can."""
        for place in range(max(start, len(text) - self._longest), len(text)):
            begins_word = place == 0 or not re.match(r"\w", text[place - 1])
            if begins_word and any(term.startswith(text[place:]) for term in self.terms):
                return place
        return len(text)


class Stream:
    """Replaces in an answer that comes in pieces: a term may be cut anywhere."""

    def __init__(self, glossary: Glossary):
        self._glossary = glossary
        self._released = ""  # The last character that was let go: whether a word begins depends on it.
        self._held = ""

    def feed(self, piece: str, last: bool) -> str:
        """Takes a piece and returns what can be let go. It holds back less than the longest term and one character."""
        text = self._released + self._held + piece
        place = len(self._released)
        out = []
        while True:
            undecided = len(text) if last else self._glossary.undecided(text, place)
            found = self._glossary.next_match(text, place)
            if found is None or found.start() >= undecided:
                break
            out += [text[place : found.start()], self._glossary.terms[found[0]]]
            place = found.end()
        out.append(text[place:undecided])
        self._released = text[undecided - 1 : undecided] if undecided else ""
        self._held = text[undecided:]
        return "".join(out)
