"""Search: put operations between given numbers so that the result comes as near to a target as can be.

The ways are tried in order, all last steps of one beginning together; a beginning that leaves the whole numbers from 0 to
999 is dead at the step where it does. What must be remembered is the nearest result so far: it is looked at after every
result but written only when it changes, in most puzzles for the last time in the first half.
"""

import itertools

from puzzle import Puzzle
from writing import effort

# Numbers after the first, operations, tokens of trace if all ways are tried: measured.
SIZES = [(2, "+-*", 210), (2, "+-*/", 270), (3, "+-*", 620), (3, "+-*/", 1000), (4, "+-*", 1950), (4, "+-*/", 4000),
         (5, "+-*", 6300), (5, "+-*/", 16000)]
EARLY = 0.65  # of the puzzles find the nearest result in the first half


def _apply(a, operation, b):
    """None when the result is not a whole number."""
    if operation == "/":
        return a // b if a % b == 0 else None
    return a + b if operation == "+" else a - b if operation == "-" else a * b


def _is_dead(result):
    return result is None or not 0 <= result <= 999


def _say(a, operation, b, result):
    if not _is_dead(result):
        return f"{a} {operation} {b} = {result}"
    return f"{a} {operation} {b} " + ("not whole" if result is None else "below 0" if result < 0 else "above 999")


def _beginnings(numbers, operations):
    """All steps but the last, in order: [(operations, text, value or None if dead)]. Skips what a dead step rules out."""
    out, dead = [], None
    for way in itertools.product(operations, repeat=len(numbers) - 2):
        if dead and way[: len(dead)] == dead:
            continue
        value, said, dead = numbers[0], [], None
        for i, operation in enumerate(way):
            result = _apply(value, operation, numbers[i + 1])
            said.append(_say(value, operation, numbers[i + 1], result))
            value = result
            if _is_dead(result):
                value, dead = None, way[: i + 1]
                break
        out.append((way, ", ".join(said), value))
    return out


def _results(beginnings, operations, last):
    """Every result in the order of the trace."""
    results = [_apply(value, o, last) for _, _, value in beginnings if value is not None for o in operations]
    return [r for r in results if not _is_dead(r)]


def _trace(rng, beginnings, operations, last, target, scale):
    lines, best = [], None
    for way, said, value in beginnings:
        if value is None:
            lines.append(f"Try {' '.join(way)}. {said}. Dead.")
            continue
        for operation in operations:
            result = _apply(value, operation, last)
            line = f"Try {' '.join(way)} {operation}. "
            if operation == operations[0]:  # the others continue from the same value
                line += said + ", "
            line += _say(value, operation, last, result)
            if _is_dead(result):
                lines.append(line + ". Dead.")
                continue
            if rng.random() < 0.03 * scale:
                line += f", check {value} {operation} {last} = {result}, yes"
            off = abs(target - result)
            line += f". Off {max(target, result)} - {min(target, result)} = {off}. "
            if best is None or off < best[0]:
                line += f"{'First' if best is None else 'Better'}, best now {off} with {value}."
                best = (off, value)
            else:
                line += "Worse."
            lines.append(line)
            if off == 0:
                lines.append("That is it.")
                return "\n".join(lines + [f"Done, best {best[0]} with {best[1]}."]), best[1]
    return "\n".join(lines + [f"Done, best {best[0]} with {best[1]}."]), best[1]


def _target(rng, results, share):
    """A target, and how many results are tried for it; share: None, or the part of all ways that shall be tried."""
    if share is not None:
        return results[min(len(results) - 1, int(len(results) * share))]
    early = rng.random() < EARLY
    for _ in range(20):
        target = rng.randint(1, 999) if rng.random() < 0.5 else rng.randint(1, 150)
        off = [abs(target - r) for r in results]
        if min(off) > 0 and (not early or off.index(min(off)) < 0.5 * len(off)):
            break
    return target


def make(rng, size):
    asked, scale = effort(rng)
    fitting = [s for s in SIZES if s[2] >= 0.7 * size] or SIZES[-1:]
    while True:
        count, operations, full = fitting[0] if rng.random() < 0.7 else rng.choice(fitting[:2])
        numbers = [rng.randint(2, 30)] + [rng.randint(2, 9) for _ in range(count)]
        beginnings = _beginnings(numbers, operations)
        results = _results(beginnings, operations, numbers[-1])
        if not results:
            continue
        short = full > 1.3 * size  # ends early, at a way that hits the target
        share = size / full * rng.uniform(0.85, 1.15) if short or rng.random() < 0.15 else None
        target = _target(rng, results, share)
        trace, answer = _trace(rng, beginnings, operations, numbers[-1], target, scale)
        listed = ", ".join(map(str, numbers[1:]))
        allowed = ", ".join(operations)
        prompt = (f"Search. Start with {numbers[0]}, then use {listed} in this order, each with one of {allowed}. All results "
                  f"must be whole, from 0 to 999. Come as near to {target} as you can, the first such way counts. {asked}"
                  f"Answer with the number before its last step in \\boxed{{}}.")
        return Puzzle("search", "search", prompt, trace, answer)
