"""Column: written arithmetic, a result at a time, and everything put together at the end.

A list of jobs (products, long divisions, conversions to another base) or the repeated squares of a power. Each result
is worked out in columns and is needed once more, when all are there; each job says which is next, so that the sum finds the
order where it finds the results. The other kinds, which keep the highest and the lowest
of many results, are in extremes.py.
"""

import extremes
from puzzle import Puzzle
from writing import NAMES, add_mod, divide, effort, multiply

KINDS = ("products", "remainders", "bases", "power")
TOKENS_PER_JOB = {"products": 243, "remainders": 153, "bases": 368, "power": 320}  # measured, the sum's share included
MOST = {"products": 70, "remainders": 110, "bases": 48, "power": 26}
LONGEST_POWER = 1.1 * TOKENS_PER_JOB["power"] * MOST["power"]
SUMS = 0.35  # of the puzzles
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _product(rng):
    a, b = rng.randint(12, 999), rng.randint(12, 999)
    return f"{a} * {b}", lambda: multiply(rng, a, b)


def _remainder(rng):
    n, d = rng.randint(1000, 9999999), rng.randint(3, 9)

    def work():
        text, quotient, rest = divide(rng, n, d)
        value = (quotient + rest) % 1000
        return f"{text}. Last three {quotient % 1000}, {quotient % 1000} + {rest} = {quotient % 1000 + rest}", value

    return f"{n} / {d}", work


def _base(rng):
    n, base = rng.randint(200, 99999), rng.randint(3, 9)

    def work():
        lines, at, total = [], n, 0
        while at > 0:
            text, at, rest = divide(rng, at, base)
            total += rest
            lines.append(f"{text}, digits {total - rest} + {rest} = {total}")
        return f"base {base}. " + ". ".join(lines), total

    return f"{n} in base {base}", work


ASKED = {"products": "Sum these products mod 1000", "bases": "Write these in their bases and sum all digits mod 1000",
         "remainders": "Divide, add each quotient to its rest, and sum all mod 1000"}
JOB = {"products": _product, "remainders": _remainder, "bases": _base}


def _list(rng, kind, n, asked, scale):
    names = rng.sample(NAMES, n)
    jobs = [JOB[kind](rng) for _ in names]
    prompt = (f"Column. {ASKED[kind]}: " + "; ".join(f"{name}: {text}" for name, (text, _) in zip(names, jobs))
              + f". {asked}Answer in \\boxed{{}}.")
    lines, values, then = [], [], [f", then {name}" for name in names[1:]] + [""]
    for i, (name, (_, work)) in enumerate(zip(names, jobs)):
        worked, value = work()
        values.append(value % 1000)
        lines.append(f"Job {name}{then[i]}: {worked}. So {name} = {values[-1]}.")
        if i > 0 and rng.random() < 0.06 * scale:
            k = rng.randrange(i)
            worked, _ = jobs[k][1]()
            lines.append(f"Wait, check {names[k]}: {worked}. Yes, {names[k]} = {values[k]}.")
        if i > 0 and rng.random() < 0.06 * scale:
            some = sorted(rng.sample(range(i + 1), min(i + 1, rng.randint(2, 5))))
            lines.append("So far " + ", ".join(f"{names[k]} = {values[k]}" for k in some) + ".")
    total = values[0]
    lines.append(f"Now the sum. Add {names[0]}{then[0]}: {names[0]} = {total}.")
    for name, after, value in zip(names[1:], then[1:], values[1:]):
        text, total = add_mod(rng, total, value)
        lines.append(f"Add {name}{after}: {name} = {value}. {text}.")
    lines.append(f"Done, {total}.")
    return Puzzle("column", kind, prompt, "\n".join(lines), total)


def _power(rng, n):
    """base ^ exponent mod 1000 by squares: A, B, C ... are base ^ 1, 2, 4 ...; those whose bit is set are multiplied."""
    base = rng.randrange(3, 1000)
    bits = [rng.random() < 0.6 for _ in range(n - 1)] + [True]
    exponent = sum(1 << i for i, bit in enumerate(bits) if bit)
    prompt = f"Column. Work out {base} ^ {exponent} mod 1000 by squares. Answer in \\boxed{{}}."
    lines, rest = [], exponent
    for letter, bit in zip(LETTERS, bits):
        text, half, odd = divide(rng, rest, 2)
        lines.append(f"Halve {letter}. {text}. {letter} is {'in' if bit else 'out'}.")
        rest = half
    lines[-1] += f" Last {letter}."
    value, values = base, []
    for i, letter in enumerate(LETTERS[:n]):
        if i == 0:
            lines.append(f"Start, so A = {value}.")
        else:
            text, value = multiply(rng, value, value)
            lines.append(f"Square {LETTERS[i - 1]}. {text}. So {letter} = {value}.")
        values.append(value)
    total = None
    lines.append("Now the product.")
    for letter, bit, value in zip(LETTERS, bits, values):
        if not bit:
            lines.append(f"{letter} is out.")
        elif total is None:
            total = value
            lines.append(f"{letter} is in, {letter} = {value}.")
        else:
            text, total = multiply(rng, total, value)
            lines.append(f"{letter} is in, {letter} = {value}. {text}.")
    lines.append(f"Done, {total}.")
    return Puzzle("column", "power", prompt, "\n".join(lines), total)


def make(rng, size):
    return make_sum(rng, size, rng.choice(KINDS)) if rng.random() < SUMS else extremes.make(rng, size)


def make_sum(rng, size, kind):
    if kind == "power" and size > LONGEST_POWER:
        kind = "products"
    n = max(2, min(MOST[kind], round(size / TOKENS_PER_JOB[kind] * rng.uniform(0.85, 1.15))))
    return _power(rng, n) if kind == "power" else _list(rng, kind, n, *effort(rng))
