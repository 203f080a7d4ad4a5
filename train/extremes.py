"""Column with extremes: the highest and the lowest of many results, kept in mind and compared with every new one.

Either a balance that goes up and down, or a list of small products and divisions. Each extreme is written when it changes,
which is seldom and mostly early, and looked at after every result.
"""

from puzzle import Puzzle
from writing import NAMES, divide, effort, times

MOST = 200  # names in one puzzle
TOKENS_PER_ENTRY, TOKENS_PER_ACCOUNT, TOKENS_PER_JOB = 15.4, 11.5, 40  # of trace: measured
EARLY = 0.65  # of the puzzles have their extremes in the first part of the trace


class Extremes:
    """What is known so far, and how a new value is compared with it."""

    def __init__(self, value):
        self.high = self.low = value
        self.changed = 0
        self.seen = 0

    def compare(self, value):
        self.seen += 1
        if value > self.high:
            self.high, self.changed = value, self.seen
            return f"high now {value}, above low"
        if value < self.low:
            self.low, self.changed = value, self.seen
            return f"below high, low now {value}"
        return "below high, above low"

    def settled_early(self):
        return self.changed < 0.5 * self.seen


def _amounts(rng, n, start):
    """Entries of a balance that stays between 0 and 999; steps of a size that leaves its extremes open."""
    most, value, amounts = rng.choice((20, 40, 80, 150)), start, []
    for _ in range(n):
        x = rng.randint(1, most)
        up = rng.random() < 0.5 + 0.25 * (start - value) / 500  # drawn back, so that late values are no likelier extremes
        if not 0 <= value + (x if up else -x) <= 999:
            up = not up
        value += x if up else -x
        amounts.append(("+" if up else "-", x))
    return amounts


def _balance(rng, size):
    asked, scale = effort(rng)
    per_account = rng.choice((1, 2, 2))
    mean = (per_account + max(1, per_account - 1)) / 2  # entries of an account
    n = round(size * rng.uniform(0.85, 1.15) / (TOKENS_PER_ENTRY * (1 + 0.02 * scale) * mean + TOKENS_PER_ACCOUNT))
    while n > MOST:
        n, per_account = round(n * per_account / (per_account + 1)), per_account + 1
    n = max(3, n)
    counts = [rng.randint(max(1, per_account - 1), per_account) for _ in range(n)]
    early = rng.random() < EARLY
    for _ in range(20):
        start = rng.randint(200, 800)
        amounts, value, extremes = _amounts(rng, sum(counts), start), start, Extremes(start)
        for operation, x in amounts:
            value += x if operation == "+" else -x
            extremes.compare(value)
        if not early or extremes.settled_early():
            break
    names, at = rng.sample(NAMES, n), 0
    extremes, value = Extremes(start), start
    lines, listed = [f"Start at {start}. High now {start}. Low now {start}."], []
    for name, count in zip(names, counts):
        entries = amounts[at : at + count]
        at += count
        listed.append(f"{name}: " + " ".join(f"{o} {x}" for o, x in entries))
        done = []
        for operation, x in entries:
            result = value + x if operation == "+" else value - x
            text = f"{value} {operation} {x} = {result}"
            if rng.random() < 0.02 * scale:
                text += f", check {value} {operation} {x} = {result}, yes"
            value = result
            done.append(f"{text}, {extremes.compare(value)}")
        lines.append(f"Entry {listed[-1]}. {'; '.join(done)}, so {name}.")
    prompt = (f"Column. A balance starts at {start}. Entries: {'; '.join(listed)}. Take them in this order. Find its highest "
              f"plus its lowest value mod 1000. {asked}Answer in \\boxed{{}}.")
    return _close("balance", prompt, lines, extremes)


def _close(kind, prompt, lines, extremes):
    total = extremes.high + extremes.low
    cut = f", cut to {total % 1000}" if total >= 1000 else ""
    lines.append(f"Done, high {extremes.high} and low {extremes.low}. {extremes.high} + {extremes.low} = {total}{cut}.")
    return Puzzle("column", kind, prompt, "\n".join(lines), total % 1000)


def _job(rng, a, b, divided):
    """(the job as the prompt has it, its steps, its value)."""
    text, value = divide(rng, a, b)[:2] if divided else times(rng, a, b)
    job, steps = text.rpartition("; so ")[0].split(": ", 1)
    return job, f"{job}: {steps}", value


def _jobs(rng, size):
    asked, scale = effort(rng)
    n = max(3, min(MOST, round(size * rng.uniform(0.85, 1.15) / (TOKENS_PER_JOB * (1 + 0.03 * scale)))))
    early = rng.random() < EARLY
    middle, spread = rng.randint(25, 75), rng.randint(8, 20)  # of factors: the extremes of no two puzzles are alike
    for _ in range(20):
        jobs, extremes = [], None
        for _ in range(n):
            factor, d = rng.randint(middle - spread, middle + spread), rng.randint(3, 9)
            if rng.random() < 0.4:
                job = _job(rng, factor * 10 + rng.randrange(10), d, True)
            else:
                job = _job(rng, factor, d, False)
            jobs.append(job)
            extremes = extremes or Extremes(job[2])
            extremes.compare(job[2])
        if not early or extremes.settled_early():
            break
    names, extremes, lines = rng.sample(NAMES, n), None, []
    for name, (job, text, value) in zip(names, jobs):
        if extremes is None:
            extremes, verdict = Extremes(value), f"high now {value}, low now {value}"
        else:
            verdict = extremes.compare(value)
        line = f"Job {name}: {text}; {name} = {value}, {verdict}."
        if rng.random() < 0.03 * scale:
            line += f" Check: {text}; yes, {name} = {value}."
        lines.append(line)
    listed = "; ".join(f"{name}: {job}" for name, (job, _, _) in zip(names, jobs))
    prompt = (f"Column. Work these out, divisions without their rests: {listed}. Find the highest plus the lowest result mod "
              f"1000. {asked}Answer in \\boxed{{}}.")
    return _close("jobs", prompt, lines, extremes)


def make(rng, size):
    return _balance(rng, size) if size > 7000 or rng.random() < 0.5 else _jobs(rng, size)
