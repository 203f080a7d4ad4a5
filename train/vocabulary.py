"""Pebble's vocabulary: byte-level BPE with GPT-2's pre-tokenizer, built from the words of the puzzles alone.

Every word of the traces becomes one token, a number is a token per digit (the first digit of a number after a space takes
the space with it), and any other text falls back to bytes. Nothing is sampled: the same sources give the same vocabulary.
"""

import random
import re

import families
from writing import NAMES, SLIP, SLIP_END

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
SIZE = 1024
# GPT-2's expression for ASCII text, all that puzzles are written in.
PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
CHAT_WORDS = ["user", "system", "assistant", "\n", "\n\n", "The", " answer", " is", " \\", "boxed", "{", "}.", " {}", "{}."]


def _byte_letters():
    """The letter that stands for each byte in a byte-level vocabulary: itself if printable, else one from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


LETTER = _byte_letters()


def _letters(text):
    return tuple(LETTER[b] for b in text.encode())


def _words():
    """Every piece without digits that the puzzles are written with, with how often it was seen."""
    rng, counts = random.Random(0), {}
    for make in families.MAKE.values():
        for i in range(300):
            puzzle = make(rng, 300 + 5 * i)
            for piece in PIECE.findall(puzzle.prompt + "\n" + re.sub(f"[{SLIP}{SLIP_END}]", "", puzzle.trace)):
                if not any(c.isdigit() for c in piece):
                    counts[piece] = counts.get(piece, 0) + 1
    for word in CHAT_WORDS + [" " + name for name in NAMES]:
        counts.setdefault(word, 1)
    return counts


def _merge_all(word, pair):
    out, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def build():
    """(tokens, merges): the token texts by id, and the merges by rank. Plain BPE training until every word is whole."""
    words = {_letters(word): count for word, count in _words().items()}
    merges = [(LETTER[32], str(d)) for d in range(10)]
    while True:
        pairs = {}
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = {_merge_all(word, best): count for word, count in words.items()}
    tokens = [LETTER[b] for b in range(256)] + list(dict.fromkeys(a + b for a, b in merges)) + SPECIAL
    assert len(tokens) <= SIZE, f"{len(tokens)} tokens"
    tokens += [f"<|unused_{i}|>" for i in range(SIZE - len(tokens))]
    return tokens, merges


class Vocabulary:
    def __init__(self):
        self.tokens, self.merges = build()
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.known = {}  # pieces already split

    def _split(self, piece):
        word = _letters(piece)
        while len(word) > 1:
            pair = min(zip(word, word[1:]), key=lambda p: self.rank.get(p, len(self.rank)))
            if pair not in self.rank:
                break
            word = _merge_all(word, pair)
        return [self.ids[token] for token in word]

    def encode(self, text):
        """Token ids of text without special tokens."""
        out, known = [], self.known
        for piece in PIECE.findall(text):
            ids = known.get(piece)
            if ids is None:
                ids = self._split(piece)
                if len(known) < 100000:
                    known[piece] = ids
            out += ids
        return out

    def special(self, name):
        return self.ids[name]
