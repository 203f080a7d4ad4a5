"""Pebble's puzzles: every held-out answer solved again by other means, training kept apart, tokens as the program makes them."""
import heapq
import itertools
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

ROOT, PITH = os.environ["PITH_ROOT"], os.environ["PITH_PROGRAM"]
sys.path.insert(0, os.path.join(ROOT, "train"))
sys.path.insert(0, os.path.join(os.environ["PITH_LLAMA_CPP"], "gguf-py"))
sys.dont_write_bytecode = True

import families
import stream
import weights
import writing
from puzzle import is_held_out

MODEL = os.path.join(ROOT, "models", "pebble.gguf")
QUICK = "PITH_TEST_QUICK" in os.environ


def held_out():
    problems = []
    for name in ("1k", "3k", "8k"):
        with open(os.path.join(ROOT, "eval", "pebble", name + ".jsonl")) as file:
            problems += [json.loads(line) for line in file]
    return problems


# ------------------------------------------------------------------------- solvers that share nothing with the generator


def chain(text):
    """{name: (first, steps)} of definitions worked from left to right."""
    return {name: (first, re.findall(r"([-+]) (\w+)", steps))
            for name, first, steps in re.findall(r"(\w+) := (\w+)((?: [-+] \w+)*)", text)}


def solve_limits(prompt):
    limits, ceiling, floor, values, last = re.search(
        r"Limits: (.*)\. Ceiling (\w+), floor (\w+)\. Values: (.*)\. Work .* find (\w+)\.", prompt).groups()

    def value(definitions, rule, name, known):
        if name.isdigit():
            return int(name)
        if name not in known:
            first, steps = definitions[name]
            result = value(definitions, rule, first, known)
            for sign, operand in steps:
                x = value(definitions, rule, operand, known)
                result = rule((result + x if sign == "+" else result - x) % 1000)
            known[name] = result
        return known[name]

    plain, highest, lowest = {}, *(value(chain(limits), lambda x: x, name, {}) for name in (ceiling, floor))

    def held(x):
        x = x % 100 if x > highest else x
        return x + 500 if x < lowest else x

    sys.setrecursionlimit(10000)
    return value(chain(values), held, last, plain)


def solve_ledger(prompt):
    if "Limits:" in prompt:
        return solve_limits(prompt)
    definitions = dict(re.findall(r"(\w+) := ([^;.]+)[;.]", prompt))
    asked = re.search(r"Find (\w+)\.", prompt).group(1)
    values = {}
    while asked not in values:
        for name, text in definitions.items():
            if all(word in values for word in re.findall(r"[a-z]+", text)):
                values[name] = eval(re.sub(r"[a-z]+", lambda m: str(values[m.group()]), text)) % 1000
    return values[asked]


def solve_search(prompt):
    first, listed, allowed, target = re.search(
        r"Start with (\d+), then use ([\d, ]+) in this order, each with one of ([-+*/, ]+)\. .* near to (\d+) as", prompt).groups()
    numbers, best = [int(x) for x in listed.split(", ")], None
    for way in itertools.product(allowed.split(", "), repeat=len(numbers)):
        values = [int(first)]
        for operation, n in zip(way, numbers):
            value = values[-1]
            value = {"+": value + n, "-": value - n, "*": value * n, "/": value // n if value % n == 0 else -1}[operation]
            if not 0 <= value <= 999:
                break
            values.append(value)
        else:
            off = abs(values[-1] - int(target))
            if best is None or off < best[0]:
                best = (off, values[-2])
    return best[1]


def solve_ends(prompt):
    towns, start, ends = re.search(r"Walk\. (.*)\. Start at (\w+)\. Ends and their fees: ([^.]+)\.", prompt).groups()
    roads = {name: {other: int(length) for other, length in re.findall(r"(\w+) (\d+)", listed)}
             for name, listed in re.findall(r"(\w+): ([^;]+)", towns)}
    length = {start: 0}
    for _ in roads:  # Bellman and Ford's method
        for at, near in roads.items():
            for other, road in near.items():
                assert roads[other][at] == road, "a road is as long both ways"
                if at in length and length[at] + road < length.get(other, 10**9):
                    length[other] = length[at] + road
    return min(length[name] + int(fee) for name, fee in re.findall(r"(\w+) (\d+)", ends))


def solve_walk(prompt):
    if "Ends and their fees" in prompt:
        return solve_ends(prompt)
    towns = re.search(r"Walk\. (.*)\. Go the shortest", prompt).group(1)
    start, goal = re.search(r"from (\w+) to (\w+)\.", prompt).groups()
    tolls, roads = {}, {}
    for name, toll, listed in re.findall(r"(\w+) toll (\d+): ([^;]+)", towns):
        tolls[name] = int(toll)
        roads[name] = {other: int(length) for other, length in re.findall(r"(\w+) (\d+)", listed)}
    answers = set()
    for sign in (1, -1):  # the least and the most tolls of all shortest ways: they must agree
        done, pending = {}, [(0, sign * tolls[start], start)]
        while goal not in done:
            length, paid, at = heapq.heappop(pending)
            if at in done:
                continue
            done[at] = length, paid
            for other, road in roads[at].items():
                assert roads[other][at] == road, "a road is as long both ways"
                heapq.heappush(pending, (length + road, paid + sign * tolls[other], other))
        answers.add(done[goal][0] + sign * done[goal][1])
    assert len(answers) == 1, answers
    return answers.pop()


def in_base(n, base):
    digits = []
    while n:
        n, digit = divmod(n, base)
        digits.append(digit)
    return digits


def solve_column(prompt):
    balance = re.search(r"balance starts at (\d+)\. Entries: ([^.]+)\.", prompt)
    if balance:
        all_values = list(itertools.accumulate((int(sign + x) for sign, x in re.findall(r"([-+]) (\d+)", balance.group(2))),
                                               initial=int(balance.group(1))))
        return (max(all_values) + min(all_values)) % 1000
    if "highest plus the lowest result" in prompt:
        results = [int(a) * int(b) if sign == "*" else int(a) // int(b)
                   for a, sign, b in re.findall(r"(\d+) ([*/]) (\d+)", prompt)]
        return (max(results) + min(results)) % 1000
    power = re.search(r"(\d+) \^ (\d+) mod 1000", prompt)
    if power:
        return pow(int(power.group(1)), int(power.group(2)), 1000)
    products = re.findall(r"(\d+) \* (\d+)", prompt)
    divisions = re.findall(r"(\d+) / (\d+)", prompt)
    bases = re.findall(r"(\d+) in base (\d+)", prompt)
    assert bool(products) + bool(divisions) + bool(bases) == 1
    return (sum(int(a) * int(b) for a, b in products) + sum(sum(divmod(int(a), int(b))) for a, b in divisions)
            + sum(sum(in_base(int(a), int(b))) for a, b in bases)) % 1000


SOLVE = {"ledger": solve_ledger, "search": solve_search, "walk": solve_walk, "column": solve_column}


class Puzzles(unittest.TestCase):
    def test_the_held_out_set(self):
        problems = held_out()
        self.assertGreaterEqual(len(problems), 200)
        self.assertEqual(len({p["id"] for p in problems}), len(problems))
        self.assertEqual(len({p["prompt"] for p in problems}), len(problems))
        for p in problems:
            with self.subTest(p["id"]):
                self.assertTrue(is_held_out(p["prompt"]))
                self.assertTrue(0 <= int(p["answer"]) <= 999)
                self.assertEqual(SOLVE[p["family"]](p["prompt"]), int(p["answer"]))

    def test_fresh_puzzles_of_all_sizes(self):
        rng = random.Random(77)
        for family, make in families.MAKE.items():
            for size in [200] * 12 + [700] * 8 + [3000] * 4 + [9000] * 2:
                puzzle = make(rng, size)
                self.assertIn(puzzle.kind, families.KINDS)
                with self.subTest(family, prompt=puzzle.prompt[:60]):
                    self.assertEqual(SOLVE[family](puzzle.prompt), puzzle.answer)
        for make in families.PRACTISED:
            for size in (500, 2000, 9000):
                puzzle = make(rng, size)
                with self.subTest(puzzle.kind, prompt=puzzle.prompt[:60]):
                    self.assertEqual(SOLVE[puzzle.family](puzzle.prompt), puzzle.answer)

    def test_what_a_trace_states_is_true(self):
        """Every written sum, difference and product, but for slips."""
        rng, n = random.Random(5), 0
        for make in [*families.MAKE.values(), *families.PRACTISED]:
            for _ in range(12):
                puzzle = make(rng, 1500)
                family = puzzle.family
                trace = re.sub(f"{writing.SLIP}[^{writing.SLIP_END}]*{writing.SLIP_END}[^=]*= ", "", puzzle.trace)
                for left, right in re.findall(r"(?<!\d)(?<![-+*/] )(\d+(?: [-+*] \d+)+) = (\d+)", trace):
                    wraps = family == "ledger"  # there a single sum or difference may be written mod 1000 at once
                    self.assertIn(int(right), {eval(left), eval(left) % 1000} if wraps else {eval(left)},
                                  f"{family}: {left} = {right}")
                    n += 1
        self.assertGreater(n, 2000)

    def test_training_never_sees_held_out_ones(self):
        longest, rng = multiprocessing.Value("d", 600, lock=False), random.Random(3)
        picked = [stream.pick(rng, longest.value) for _ in range(400)]
        self.assertFalse(any(is_held_out(p.prompt) for p in picked))
        made = [families.MAKE["column"](rng, 300) for _ in range(640)]
        self.assertGreater(sum(is_held_out(p.prompt) for p in made), 10)  # 40 expected: the test above can fail

    def test_training_rows(self):
        longest = multiprocessing.Value("d", 900, lock=False)
        tokens, starts, groups = next(stream.batches(1, longest))
        writer = stream.Writer()
        self.assertEqual((len(tokens), len(groups)), (stream.ROW + 1, stream.ROW))
        used = starts[: list(starts).index(stream.ROW)]  # the last of these is the rest without loss
        self.assertTrue((used[1:] > used[:-1]).all())
        for at in used[:-1]:
            self.assertEqual(tokens[at] & ~stream.SILENT, writer.vocabulary.special("<|im_start|>"))
        taught = tokens < stream.SILENT
        self.assertGreater(taught.mean(), 0.5)
        self.assertFalse(taught[used[-1]:].any())


class Model(unittest.TestCase):
    def test_it_is_what_the_card_says(self):
        import gguf

        reader = gguf.GGUFReader(MODEL)

        def value(key):
            return reader.fields[key].contents()

        self.assertLessEqual(os.path.getsize(MODEL), 45_000_000)
        self.assertEqual(value("general.architecture"), "qwen2")
        self.assertEqual(value("qwen2.attention.head_count_kv"), 2)
        self.assertEqual(value("qwen2.embedding_length") // value("qwen2.attention.head_count"), 64)
        self.assertEqual(value("qwen2.rope.freq_base"), 1e6)
        self.assertGreaterEqual(value("qwen2.context_length"), 16384)
        self.assertLessEqual(len(value("tokenizer.ggml.tokens")), 2048)
        self.assertTrue(20e6 <= sum(int(t.n_elements) for t in reader.tensors) <= 40e6)

    def test_a_second_leg_begins_with_its_weights(self):
        """By token text, whatever ids it had; read without gguf-py, as the machine that trains may lack it."""
        import gguf
        import numpy as np

        tokens = gguf.GGUFReader(MODEL).fields["tokenizer.ggml.tokens"].contents()
        expected = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(MODEL).tensors}
        held = weights.read_for(MODEL, [*tokens[::-1], "a token that no model has"])
        embedding = expected.pop("token_embd.weight")
        np.testing.assert_array_equal(held.pop("token_embd.weight")[:-1], embedding[::-1])
        self.assertEqual(held.keys(), expected.keys())
        for name, array in expected.items():
            np.testing.assert_array_equal(held[name], array, name)

    def test_the_program_reads_prompts_as_training_did(self):
        writer = stream.Writer()
        for p in held_out()[:: 60 if QUICK else 12]:
            puzzle = type("Prompt", (), {"prompt": p["prompt"]})
            done = subprocess.run([PITH, "run", "-m", MODEL, "--json", "-n", "1", "--threads", "1", "-p", p["prompt"]],
                                  capture_output=True, check=True)
            self.assertEqual(json.loads(done.stdout)["prompt_tokens"], len(writer.prompt(puzzle) + writer.think))

    def test_it_solves_short_puzzles(self):
        n = 4 if QUICK else 8
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([PITH, "eval", "pebble", "-m", MODEL, "--data", os.path.join(ROOT, "eval"), "--out", folder,
                                   "--policy", "full", "--limit", str(n), "--json"], capture_output=True, check=True)
            with open(os.path.join(folder, "full.jsonl")) as file:
                samples = [json.loads(line) for line in file]
        self.assertEqual(len(samples), n, done.stderr)
        self.assertGreaterEqual(sum(s["correct"] for s in samples), n - 1)  # nine of ten is what the card promises

    def test_the_demo(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "scripts", "demo.py"), "--program", PITH, "--problem",
                               "1k-column-00", "--policy", "rpc:p=64,r=16,c=2"], capture_output=True, text=True, check=True)
        full, compressed = re.findall(r"^(?:full|rpc\S+) +(\d+) +[\d.]+ +(\d+) +[\d.]+ MB +(\d+) +(\w+), (right|wrong)$",
                                      done.stdout, re.M)
        expected = re.search(r"^expected (\d+);", done.stdout, re.M).group(1)
        for tokens, rows, compressions, answer, verdict in (full, compressed):
            self.assertGreater(int(tokens), 200)
            self.assertEqual(verdict == "right", answer == expected)
        self.assertEqual(full[2:], ("0", expected, "right"))
        self.assertGreater(len(re.findall(" \\| ", done.stdout)), 20)  # the texts, as they came
        self.assertGreater(int(compressed[2]), 2)
        self.assertLess(int(compressed[1]), int(full[1]))


if __name__ == "__main__":
    unittest.main()
