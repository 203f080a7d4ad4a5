"""Ledger: definitions in shuffled order, one value asked, all numbers mod 1000.

In a tree of definitions the trace starts from the question again and again: it goes down through the first operand that is
still open until it meets a definition whose operands are all known, works that out, and returns to the question. Known
operands are said with their values on the way down. So what to do next follows from the prompt and from which values are
known; the values themselves are what must be remembered, and many are used again thousands of tokens after they were said.
The other kind, a chain between limits, is in limits.py.
"""

import limits
from puzzle import Puzzle
from writing import NAMES, add_mod, effort, multiply, subtract, times

MOST = 96  # definitions of one puzzle
DEPTH = 8
TREES = 0.35  # of the puzzles


def _shape(rng, n):
    """operands: for each of n values those it needs, later values only; every value is needed by value 0."""
    depth, operands = [0] * n, [[] for _ in range(n)]
    near = rng.choice((2, 4, 8, n))
    for j in range(1, n):
        free = [i for i in range(j) if len(operands[i]) < 2 and depth[i] < DEPTH] or [
            i for i in range(j) if len(operands[i]) < 2]
        parent = rng.choice(free[-near:])
        operands[parent].append(j)
        depth[j] = depth[parent] + 1
    for i in range(n - 2):  # shared values: needed here, and found long before or long after
        if len(operands[i]) < 2 and rng.random() < (0.6 if operands[i] else 0.5):
            other = rng.randrange(i + 1, n)
            if other not in operands[i]:
                operands[i].append(other)
    for pair in operands:
        rng.shuffle(pair)
    return operands


def _define(rng, names, operands):
    """A definition: (kind, operand ids, constants, text)."""
    of = [names[k] for k in operands]
    x = rng.randrange(1, 1000)
    if len(of) == 2:
        kind = rng.choice(("sum", "sum", "difference", "product", "mixed", "mixed"))
        k = rng.randint(2, 9)
        text = {"sum": f"{of[0]} + {of[1]}", "difference": f"{of[0]} - {of[1]}", "product": f"{of[0]} * {of[1]} + {x}",
                "mixed": f"{k} * {of[0]} + {of[1]}"}[kind]
        return kind, operands, (k, x), text
    if len(of) == 1:
        kind = rng.choice(("plus", "minus", "scaled"))
        k = rng.randint(2, 9)
        text = {"plus": f"{of[0]} + {x}", "minus": f"{of[0]} - {x}", "scaled": f"{k} * {of[0]} + {x}"}[kind]
        return kind, operands, (k, x), text
    return "number", operands, (0, x), f"{x}"


def _work(rng, definition, values):
    """The arithmetic of one definition with its operands' values; (text, value)."""
    kind, operands, (k, x), _ = definition
    a = values[operands[0]] if operands else 0
    b = values[operands[1]] if len(operands) > 1 else 0
    if kind == "sum":
        return add_mod(rng, a, b)
    if kind == "difference":
        return subtract(rng, a, b)
    if kind == "plus":
        return add_mod(rng, a, x)
    if kind == "minus":
        return subtract(rng, a, x)
    if kind == "product":
        first, value = multiply(rng, a, b)
    else:
        first, value = times(rng, a, k)
        value %= 1000
        first += f", cut to {value}" if a * k >= 1000 else ""
    second, value = add_mod(rng, value, b if kind == "mixed" else x)
    return f"{first}. {second}", value


def _recall(names, definition, values):
    return "Recall " + ", ".join(f"{names[k]} = {values[k]}" for k in definition[1]) + ". "


def _trace(rng, names, definitions, n, scale):
    """scale: how often is checked and recalled, 1 being usual."""
    values, found, lines = {}, [], []

    def waiting():
        """Values that a definition still to be worked out needs."""
        return [i for i in found if any(i in definitions[k][1] for k in range(n) if k not in values)]

    def check(i):
        text, value = _work(rng, definitions[i], values)
        lines.append(f"Wait, check {names[i]} := {definitions[i][3]}. {_recall(names, definitions[i], values)}"
                     f"{text}. Yes, {names[i]} = {value}.")

    while 0 not in values:
        lines.append(f"Find {names[0]}.")
        at = 0
        while True:
            definition = definitions[at]
            line = f"See {names[at]} := {definition[3]}."
            open_operand = next((k for k in definition[1] if k not in values), None)
            for k in definition[1]:
                line += f" {names[k]} open." if k == open_operand else f" {names[k]} {values[k]}."
                if k == open_operand:
                    break
            if open_operand is None:
                break
            lines.append(line)
            if rng.random() < 0.03:
                other = rng.randrange(len(names))
                if other not in definition[1]:
                    lines.append(f"Maybe {names[other]}? Not in {names[at]}, drop it.")
            at = open_operand
        if definition[1]:
            text, values[at] = _work(rng, definition, values)
            lines.append(f"{line} {text}. So {names[at]} = {values[at]}.")
        else:
            values[at] = definition[2][1]
            lines.append(f"{line} So {names[at]} = {values[at]}.")
        if definition[1]:
            found.append(at)
            if at != 0 and rng.random() < 0.02 * scale:
                check(at)
            if at != 0 and len(found) > 4 and rng.random() < 0.05 * scale:
                check(rng.choice(found))
            if at != 0 and rng.random() < 0.06 * scale:
                some = waiting()
                some = rng.sample(some, min(len(some), rng.randint(2, 5)))
                if some:
                    lines.append("Still to use: " + ", ".join(f"{names[i]} = {values[i]}" for i in some) + ".")
    lines.append(f"Done, {names[0]} = {values[0]}.")
    return "\n".join(lines), values[0]


def _tree(rng, size):
    asked, scale = effort(rng)
    n = max(3, min(MOST, round((size / (64 + 6 * scale) * rng.uniform(0.85, 1.15)) ** 0.8)))  # tokens, measured: 70 n^1.25
    extra = round(n * rng.uniform(0.05, 0.2))  # definitions that the question does not need
    names = rng.sample(NAMES, n + extra)
    operands = _shape(rng, n) + [rng.sample(range(n), rng.choice((0, 1, 2))) for _ in range(extra)]
    definitions = [_define(rng, names, needed) for needed in operands]
    order = list(range(n + extra))
    rng.shuffle(order)
    listed = "; ".join(f"{names[i]} := {definitions[i][3]}" for i in order)
    prompt = f"Ledger mod 1000. {listed}. Find {names[0]}. {asked}Answer in \\boxed{{}}."
    trace, answer = _trace(rng, names, definitions, n, scale)
    return Puzzle("ledger", "tree", prompt, trace, answer)


def make(rng, size):
    return _tree(rng, size) if rng.random() < TREES else limits.make(rng, size)
