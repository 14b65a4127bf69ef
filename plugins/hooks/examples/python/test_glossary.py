import unittest

from glossary import Glossary, Stream

TERMS = {"ASAP": "as soon as possible", "New York": "NYC", "New York Times": "NYT", "York Club": "YC", "é": "e"}
TEXTS = [
    ("Come ASAP.", "Come as soon as possible."),
    ("ASAP", "as soon as possible"),
    ("ASAPs xASAP ASAP_", "ASAPs xASAP ASAP_"),
    ("New York Times, New York T, New Yor", "NYT, NYC T, New Yor"),
    ("New York Club", "NYC Club"),
    ("é né é", "e né e"),
    ("ASAP ASAP", "as soon as possible as soon as possible"),
    ("", ""),
]


class Replacing(unittest.TestCase):
    def test_terms_are_replaced_as_whole_words(self):
        for text, expected in TEXTS:
            self.assertEqual(Glossary(TERMS).replace(text), expected)

    def test_where_a_stream_is_cut_makes_no_difference(self):
        for text, expected in TEXTS:
            for first in range(len(text) + 1):
                for second in range(first, len(text) + 1):
                    stream = Stream(Glossary(TERMS))
                    pieces = [text[:first], text[first:second], text[second:], ""]
                    out = [stream.feed(piece, number == 3) for number, piece in enumerate(pieces)]
                    self.assertEqual("".join(out), expected, pieces)

    def test_nothing_is_held_back_that_cannot_be_a_term(self):
        stream = Stream(Glossary(TERMS))
        self.assertEqual(stream.feed("Some text, ASA", False), "Some text, ")
        self.assertEqual(stream.feed("x", False), "ASAx")
