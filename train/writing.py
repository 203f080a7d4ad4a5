"""How Pebble writes: names, and schoolbook arithmetic a digit at a time.

Every function that returns text returns it as it stands in a trace. Values are numbers mod 1000 where nothing else is
said. A slip is written between SLIP and SLIP_END: the model reads it but is not taught to write it.
"""

import random

SLIP, SLIP_END = "\x02", "\x03"
SLIP_RATE = 0.004  # of the digits that are worked out

_CONSONANTS, _VOWELS, _ENDS = "bdfgklmnprstvz", "aeiou", "bknrst"
NAMES = [a + v + b for a in _CONSONANTS for v in _VOWELS for b in _ENDS]
random.Random(1).shuffle(NAMES)
del NAMES[256:]
for _word in ("tab", "not", "set", "get", "put", "ban", "bus", "mab", "nor", "for", "let", "new", "low", "end"):  # words of the traces
    if _word in NAMES:
        NAMES.remove(_word)


EFFORTS = {"Do not check. ": 0.0, "": 1.0, "Check often. ": 3.0}  # what a prompt asks for, and how often then is checked


def effort(rng):
    """(the words of the prompt, a factor on the rates of checks and recaps)."""
    return rng.choices(list(EFFORTS.items()), (1, 2, 1))[0]


def _step(rng, before, value, digit, carry, word):
    """One worked digit: "7 + 8 = 15, 5 carry 1". Sometimes a slip that is noticed at once."""
    slip = ""
    if rng.random() < SLIP_RATE:
        wrong = (value + rng.choice((1, 2, 9, 10, -1))) % 100
        slip = f"{SLIP}{wrong}{SLIP_END}? No, {before} = "
    tail = f", {digit} {word} {carry}" if carry else ""
    return f"{before} = {slip}{value}{tail}"


def _digits(n):
    """The decimal digits of n, ones first."""
    return [int(c) for c in reversed(str(n))]


def add(rng, a, b):
    """a + b worked out; (text, sum)."""
    x, y, steps, carry = _digits(a), _digits(b), [], 0
    for i in range(max(len(x), len(y))):
        parts = [d[i] for d in (x, y) if i < len(d)] + ([carry] if carry else [])
        total = sum(parts)
        last = i == max(len(x), len(y)) - 1
        if len(parts) == 1:
            steps.append(f"{total}")
            carry = 0
            continue
        carry = 0 if last else total // 10
        steps.append(_step(rng, " + ".join(map(str, parts)), total, total % 10, carry, "carry"))
    return f"{a} + {b}: {'; '.join(steps)}; so {a + b}", a + b


def subtract(rng, a, b):
    """a - b mod 1000 worked out; (text, difference). A borrow past the hundreds is a thousand and drops out."""
    x, y, steps, borrow = _digits(a) + [0, 0, 0], _digits(b) + [0, 0, 0], [], 0
    for i in range(3):
        top, low = x[i], y[i] + borrow
        need = " - ".join([str(top)] + [str(y[i])] + (["1"] if borrow else []))
        borrow = 1 if top < low else 0
        value = top - low + 10 * borrow
        steps.append(_step(rng, need + (" + 10" if borrow else ""), value, value, borrow, "borrow"))
    r = (a - b) % 1000
    return f"{a} - {b}: {'; '.join(steps)}; so {r}", r


def _times_digit(rng, a, d):
    """The steps of a * d for one digit d."""
    x, steps, carry = _digits(a), [], 0
    for i, digit in enumerate(x):
        value = digit * d + carry
        before = f"{digit} * {d}" + (f" + {carry}" if carry else "")
        carry = 0 if i == len(x) - 1 else value // 10
        steps.append(_step(rng, before, value, value % 10, carry, "carry"))
    return "; ".join(steps)


def times(rng, a, d):
    """a * d for one digit d; (text, product)."""
    return f"{a} * {d}: {_times_digit(rng, a, d)}; so {a * d}", a * d


def last_three(n):
    """How a number is cut to its last three digits: ("", n) when there is nothing to cut."""
    return (f", cut to {n % 1000}" if n >= 1000 else ""), n % 1000


def add_mod(rng, a, b):
    text, total = add(rng, a, b)
    cut, total = last_three(total)
    return text + cut, total


def multiply(rng, a, b):
    """a * b mod 1000, a and b below 1000: only what reaches the last three digits is worked out; (text, product)."""
    text, total = f"{a} * {b}.", 0
    for place, d in zip(("Ones", "Tens", "Hundreds"), _digits(b)):
        shift = {"Ones": 1, "Tens": 10, "Hundreds": 100}[place]
        if d == 0:
            continue
        part = a % (1000 // shift)
        product = part * d
        row = product * shift % 1000
        text += f" {place}: {part} * {d}: {_times_digit(rng, part, d)}; so {product}, row {row}."
        if total == 0:
            total = row
        else:
            more, total = add_mod(rng, total, row)
            text += f" {more}."
    return text + f" Product {total}", total


def divide(rng, n, d):
    """n / d for one digit d by long division; (text, quotient, remainder)."""
    steps, rest = [], 0
    for digit in reversed(_digits(n)):
        part = rest * 10 + digit
        rest = part % d
        steps.append(f"{part} has {part // d} rest {rest}")
    return f"{n} / {d}: {'; '.join(steps)}; so {n // d} rest {n % d}", n // d, n % d
