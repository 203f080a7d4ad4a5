#!/usr/bin/python3
"""Writes the evaluation set: python3 train/heldout.py [--out eval/pebble] [--per-family 20] [--seed 1]

Three bands by the length of the reference trace, as many puzzles of each family in each. None of them can be in the
training stream, which drops every puzzle whose prompt `is_held_out`; here nothing else is taken.
"""

import argparse
import json
import pathlib
import random

import families
import writing
from puzzle import is_held_out
from vocabulary import Vocabulary

ROOT = pathlib.Path(__file__).resolve().parent.parent
BANDS = {"1k": (700, 1400), "3k": (2300, 3900), "8k": (6500, 9800)}  # tokens of trace


def draw(rng, vocabulary, family, band, taken):
    low, high = BANDS[band]
    while True:
        puzzle = families.MAKE[family](rng, (low * high) ** 0.5)
        if puzzle.prompt in taken or not is_held_out(puzzle.prompt):
            continue
        tokens = len(vocabulary.encode(puzzle.trace))
        if low <= tokens <= high:
            taken.add(puzzle.prompt)
            return puzzle, tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "eval" / "pebble")
    parser.add_argument("--per-family", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    writing.SLIP_RATE = 0.0  # reference traces are measured without slips
    vocabulary, taken = Vocabulary(), set()
    options.out.mkdir(parents=True, exist_ok=True)
    for band in BANDS:
        rng = random.Random(f"{options.seed} {band}")
        lines = []
        for i in range(options.per_family):
            for family in families.MAKE:
                puzzle, tokens = draw(rng, vocabulary, family, band, taken)
                lines.append(json.dumps({"id": f"{band}-{family}-{i:02}", "band": band, "family": family, "kind": puzzle.kind,
                                         "prompt": puzzle.prompt, "answer": str(puzzle.answer), "trace_tokens": tokens}))
        (options.out / f"{band}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
