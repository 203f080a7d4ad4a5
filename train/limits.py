"""Ledger with limits: a chain of values, each step held between a ceiling and a floor that are found first.

Both limits are looked at after every step and never written again: of a long trace they are the oldest lines and the ones
most often read. What is needed besides is the newest value alone, but for puzzles in which some steps use earlier values:
those are recalled before the steps, name by name, from where they were found.
"""

from puzzle import Puzzle
from writing import NAMES, effort

MOST = 180  # definitions of one puzzle
TOKENS = 16.0, 17.0  # of trace for a step, and for a definition besides its steps: measured


def _text(first, steps):
    return first + "".join(f" {operation} {operand}" for operation, operand in steps)


def _apply(a, operation, b):
    return (a + b if operation == "+" else a - b) % 1000


def _limit(rng, names, low, high):
    """Two to four definitions, the last of which is between low and high: [(name, first, steps)], its value."""
    value, chain = rng.randrange(1, 1000), []
    chain.append((names[0], str(value), []))
    for before, name in zip(names, names[1:]):
        operation, wanted = rng.choice("+-"), rng.randint(low, high)
        x = (wanted - value) % 1000 if operation == "+" else (value - wanted) % 1000
        chain.append((name, before, [(operation, str(x))]))
        value = wanted
    return chain, value


def _find_limit(what, chain):
    """The trace of one limit: down to the number, and up again."""
    name, first, steps = chain[-1]
    line = f"Find {what} {name} := {_text(first, steps)}"
    for name, first, steps in reversed(chain[:-1]):
        line += f", needs {name} := {_text(first, steps)}"
    value = int(chain[0][1])
    lines = [f"{line}. So {chain[0][0]} = {value}."]
    for name, first, steps in chain[1:]:
        (operation, x), before = steps[0], value
        value = _apply(value, operation, int(x))
        lines.append(f"Next {name} := {_text(first, steps)}. {before} {operation} {x} = {value}. So {name} = {value}.")
    lines.append(f"{what.capitalize()} is {value}.")
    return lines


def _steps(rng, at, count, names, reuse):
    """The steps of definition at: (operation, operand), an operand being a number or an earlier name."""
    steps = []
    for _ in range(count):
        far = at > 1 and rng.random() < reuse
        steps.append((rng.choice("+-"), names[rng.randrange(at)] if far else str(rng.randint(1, 999))))
    return steps


def make(rng, size, reuse=None):
    """reuse: the part of the steps that use an earlier value; None: in one puzzle of four, 0.04."""
    asked, scale = effort(rng)
    usual = rng.choice((0, 0, 0, 0.04))
    reuse = usual if reuse is None else reuse
    per_definition = rng.choice((1, 2, 2))
    tokens = TOKENS[1] + TOKENS[0] * (1 + 0.02 * scale) * per_definition
    n = round((size - 250) * rng.uniform(0.85, 1.15) / tokens)
    while n > MOST:
        n, per_definition = round(n * per_definition / (per_definition + 1)), per_definition + 1
    n = max(2, n)
    lengths = [rng.randint(2, 4) for _ in range(2)]
    names = rng.sample(NAMES, n + sum(lengths))
    ceiling_chain, ceiling = _limit(rng, names[n:n + lengths[0]], 560, 940)
    floor_chain, floor = _limit(rng, names[n + lengths[0]:], 60, 380)

    value = rng.randint(floor, ceiling)
    definitions, values = [(names[0], str(value), [])], [value]
    lines = _find_limit("ceiling", ceiling_chain) + _find_limit("floor", floor_chain)
    lines.append(f"Start {names[0]} := {value}. So {names[0]} = {value}.")
    for i in range(1, n):
        steps = _steps(rng, i, per_definition, names, reuse)
        definitions.append((names[i], names[i - 1], steps))
        done, earlier = [], dict.fromkeys(operand for _, operand in steps if not operand.isdigit())
        recall = "Recall " + ", ".join(f"{name} = {values[names.index(name)]}" for name in earlier) + ". " if earlier else ""
        for operation, operand in steps:
            x = int(operand) if operand.isdigit() else values[names.index(operand)]
            result = _apply(value, operation, x)
            text = f"{value} {operation} {x} = {result}"
            if rng.random() < 0.02 * scale:
                text += f", check {value} {operation} {x} = {result}, yes"
            value = result
            text += ", under" if value <= ceiling else f", above, {value % 100}"
            value = value if value <= ceiling else value % 100
            text += ", over" if value >= floor else f", below, {value + 500}"
            value = value if value >= floor else value + 500
            done.append(text)
        values.append(value)
        lines.append(f"Next {names[i]} := {_text(names[i - 1], steps)}. {recall}{'; '.join(done)}, {names[i]} = {value}.")
    lines.append(f"Done, {names[n - 1]} = {value}.")

    limits = [f"{name} := {_text(first, steps)}" for name, first, steps in ceiling_chain + floor_chain]
    listed = [f"{name} := {_text(first, steps)}" for name, first, steps in definitions]
    rng.shuffle(limits)
    rng.shuffle(listed)
    prompt = (f"Ledger mod 1000. Limits: {'; '.join(limits)}. Ceiling {ceiling_chain[-1][0]}, floor {floor_chain[-1][0]}. "
              f"Values: {'; '.join(listed)}. Work them out from left to right. After each step a result above the ceiling "
              f"loses its hundreds, then one below the floor gains 500. Start with {names[0]}, find {names[n - 1]}. "
              f"{asked}Answer in \\boxed{{}}.")
    return Puzzle("ledger", "limits", prompt, "\n".join(lines), value)
