"""An endless stream of training batches: conversations packed into rows, made by worker processes.

A batch is one flat row of ROW tokens with several conversations one after the other; attention never crosses from one into
the next. What the user says carries no loss, nor does a slip.
"""

import math
import multiprocessing
import random
import re

import numpy as np

import families
from puzzle import is_held_out
from vocabulary import Vocabulary
from writing import SLIP, SLIP_END

ROW = 65536  # tokens of a batch
LONGEST = 16384  # tokens of a conversation: the positions that the model is trained on
MOST = 128  # conversations in a batch; attention launches work for so many at full length, used or not
SILENT = 0x8000  # flag on a token that the model is not taught to write
GROUPS = [*families.KINDS, "session"]  # what the training log tells apart

_MARKED = re.compile(f"{SLIP}([^{SLIP_END}]*){SLIP_END}")


class Writer:
    """Turns puzzles into tokens as the chat template has them."""

    def __init__(self):
        self.vocabulary = Vocabulary()
        v = self.vocabulary
        start, self.end = v.special("<|im_start|>"), v.special("<|im_end|>")
        think, self.think_end = v.special("<think>"), v.special("</think>")
        newline = v.encode("\n")
        self.user = [start] + v.encode("user\n")
        self.reply = [self.end] + newline + [start] + v.encode("assistant\n")
        self.think = [think] + newline
        self.newline = newline

    def _trace(self, text):
        out, silent = [], False
        for part in _MARKED.split(text):  # every other part is a slip
            ids = self.vocabulary.encode(part)
            out += [i | SILENT for i in ids] if silent else ids
            silent = not silent
        return out

    def prompt(self, puzzle):
        return self.user + self.vocabulary.encode(puzzle.prompt) + self.reply

    def thought(self, puzzle):
        trace = self._trace(puzzle.trace) + self.newline + [self.think_end]
        return trace + self.vocabulary.encode("\n\n" + puzzle.closing) + [self.end]

    def conversation(self, puzzles):
        """Tokens with flags; all puzzles but the last are earlier turns, whose thinking the template drops."""
        out = []
        for puzzle in puzzles[:-1]:
            out += self.prompt(puzzle) + self.vocabulary.encode(puzzle.closing) + [self.end] + self.newline
        out += self.prompt(puzzles[-1]) + self.think
        return [i | SILENT for i in out] + self.thought(puzzles[-1])


def _size(rng, shortest, longest):
    """Tokens of trace to aim at: as many puzzles of each order of magnitude, and a few far past what is asked for."""
    if longest >= 12000 and rng.random() < 0.015:
        return rng.uniform(12000, 15000)
    return math.exp(rng.uniform(math.log(shortest), math.log(longest)))


def pick(rng, longest):
    while True:
        if rng.random() < families.PRACTICE:
            make = rng.choices(list(families.PRACTISED), families.PRACTISED.values())[0]
            puzzle = make(rng, _size(rng, 500, longest))
        else:
            family = rng.choices(list(families.SHARE), families.SHARE.values())[0]
            puzzle = families.MAKE[family](rng, _size(rng, 200, longest))
        if not is_held_out(puzzle.prompt):
            return puzzle


def conversations(seed, longest):
    """Yields (group, tokens). longest: a shared value, tokens of trace that the curriculum has reached."""
    rng, writer = random.Random(seed), Writer()
    while True:
        session = rng.random() < 0.03
        puzzles = [pick(rng, min(longest.value, 1500)) for _ in range(rng.randint(2, 4))] if session else [
            pick(rng, longest.value)]
        tokens = writer.conversation(puzzles)
        if len(tokens) <= LONGEST:
            yield GROUPS.index("session" if session else puzzles[0].kind), tokens


def batches(seed, longest):
    """Yields (tokens (ROW+1) uint16 with flags, starts (MOST+1) int32 padded with ROW, groups (ROW) int8)."""
    waiting = []
    source = conversations(seed, longest)
    while True:
        tokens = np.full(ROW + 1, SILENT, np.uint16)
        starts = np.full(MOST + 1, ROW, np.int32)
        groups = np.zeros(ROW, np.int8)
        at = n = 0
        while n < MOST - 1:
            while len(waiting) < 16:
                waiting.append(next(source))
            fits = next((i for i, (_, t) in enumerate(waiting) if at + len(t) <= ROW), None)
            if fits is None:
                break
            group, t = waiting.pop(fits)
            tokens[at : at + len(t)] = t
            groups[at : at + len(t)] = group
            starts[n] = at
            at += len(t)
            n += 1
        starts[n] = at  # what is left over is a conversation without loss
        yield tokens, starts, groups


def _work(queue, seed, longest):
    for batch in batches(seed, longest):
        queue.put(tuple(a.tobytes() for a in batch))


def start(seed, workers, longest):
    """Worker processes that fill a queue of batches as bytes; (queue, processes)."""
    queue = multiprocessing.Queue(32)
    processes = [multiprocessing.Process(target=_work, args=(queue, seed * 1000 + i, longest), daemon=True)
                 for i in range(workers)]
    for process in processes:
        process.start()
    return queue, processes
