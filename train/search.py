"""Search: put operations between given numbers so that the result comes as near to a target as can be.

The ways are tried in order; a way that leaves the whole numbers from 0 to 999 is dead at the step where it does. What must
be remembered is the nearest result so far: it is looked at after every try but written only when it changes.
"""

import itertools

from puzzle import Puzzle

# Numbers after the first, operations, tokens of trace per way that is tried: measured.
SIZES = [(2, "+-*", 270), (2, "+-*/", 330), (3, "+-*", 950), (3, "+-*/", 1600), (4, "+-*", 3500), (4, "+-*/", 7600),
         (5, "+-*", 12500)]


def _apply(a, operation, b):
    """None when the result is not a whole number."""
    if operation == "/":
        return a // b if a % b == 0 else None
    return a + b if operation == "+" else a - b if operation == "-" else a * b


def _ways(numbers, operations):
    """Each way that is tried: (operations, steps [(a, op, b, result)], dead). Skips what a dead step rules out."""
    ways, dead = [], None
    for way in itertools.product(operations, repeat=len(numbers) - 1):
        if dead and way[: len(dead)] == dead:
            continue
        value, steps, dead = numbers[0], [], None
        for i, operation in enumerate(way):
            result = _apply(value, operation, numbers[i + 1])
            steps.append((value, operation, numbers[i + 1], result))
            if result is None or not 0 <= result <= 999:
                dead = way[: i + 1]
                break
            value = result
        ways.append((way, steps, dead is not None))
    return ways


def _trace(ways, target):
    lines, best = [], None
    for way, steps, dead in ways:
        line = f"Try {' '.join(way)}. "
        done = [f"{a} {o} {b} = {r}" for a, o, b, r in steps if r is not None and 0 <= r <= 999]
        if dead:
            a, o, b, r = steps[-1]
            why = "not whole" if r is None else "below 0" if r < 0 else "above 999"
            lines.append(line + ", ".join(done + [f"{a} {o} {b} {why}"]) + ". Dead.")
            continue
        before, result = steps[-1][0], steps[-1][3]
        off = abs(target - result)
        line += ", ".join(done) + f". Off {max(target, result)} - {min(target, result)} = {off}. "
        if best is None or off < best[0]:
            best = (off, before)
            line += f"{'First' if len(lines) == 0 else 'Better'}, best now {off} with {before}."
        else:
            line += "Worse, back."
        lines.append(line)
        if off == 0:
            lines.append("That is it.")
            break
    if best is None:
        return None, None
    lines.append(f"Done, best {best[0]} with {best[1]}.")
    return "\n".join(lines), best[1]


def make(rng, size):
    fitting = [s for s in SIZES if s[2] >= 0.75 * size] or SIZES[-1:]
    count, operations, full = fitting[0] if rng.random() < 0.7 else rng.choice(fitting[:2])
    while True:
        numbers = [rng.randint(2, 30)] + [rng.randint(2, 9) for _ in range(count)]
        ways = _ways(numbers, operations)
        alive = [i for i, (_, _, dead) in enumerate(ways) if not dead]
        if not alive:
            continue
        if full > 1.3 * size or rng.random() < 0.3:  # ends early: the target is what some way reaches
            i = alive[min(len(alive) - 1, int(len(alive) * size / full * rng.uniform(0.85, 1.15)))]
            target = ways[i][1][-1][3]
        else:
            target = rng.randint(1, 999) if rng.random() < 0.6 else rng.randint(1, 150)
        trace, answer = _trace(ways, target)
        listed = ", ".join(map(str, numbers[1:]))
        allowed = ", ".join(operations)
        prompt = (f"Search. Start with {numbers[0]}, then use {listed} in this order, each with one of {allowed}. All results "
                  f"must be whole, from 0 to 999. Come as near to {target} as you can, the first such way counts. Answer with "
                  f"the number before its last step in \\boxed{{}}.")
        return Puzzle("search", f"search{count}", prompt, trace, answer)
