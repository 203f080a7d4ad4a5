#!/usr/bin/python3
"""Lets Pebble think about one held-out puzzle twice, side by side: with the full cache and with a compressed one.

    scripts/demo.py [--problem ID] [--policy SPEC] [--seed N]

The texts run as they come, a thread each; at the end stands what was saved and whether the answers are right.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Thinker:
    """One run of the program; its text arrives wrapped, a line of the screen at a time."""

    def __init__(self, policy, problem, options, width):
        self.policy, self.width, self.lines, self.text = policy, width, [], ""
        self.news, self.ended = threading.Condition(), False
        command = [options.program, "run", "--model", ROOT / "models" / "pebble.gguf", "--policy", policy,
                   "--threads", "1", "--seed", str(options.seed), "-n", "14000", "-p", problem["prompt"]]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        errors="replace")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            wrapped = textwrap.wrap(line.rstrip("\n"), self.width) or [""]
            with self.news:
                self.text += line
                self.lines += wrapped
                self.news.notify()
        self.summary = self.process.stderr.read()
        with self.news:
            self.ended = self.process.wait() is not None
            self.news.notify()

    def line(self, i):
        """The i-th line; "" past the end."""
        with self.news:
            self.news.wait_for(lambda: i < len(self.lines) or self.ended)
            return self.lines[i] if i < len(self.lines) else ""

    def more(self, i):
        with self.news:
            self.news.wait_for(lambda: i < len(self.lines) or self.ended)
            return i < len(self.lines)

    def results(self, expected):
        """Cells of the closing table."""
        if self.process.returncode != 0:
            sys.exit(self.summary.strip() or f"pith ended with status {self.process.returncode}")

        def number(pattern):
            return re.search(pattern, self.summary).group(1)

        answers = re.findall(r"\\boxed\{([^}]*)\}", self.text)
        answer = answers[-1] if answers else "none"
        return [self.policy, number(r"(\d+) generated"), number(r"speed +([\d.]+)"), number(r"rows: peak (\d+)"),
                number(r"bytes: peak ([\d.]+ MB)"), number(r"(\d+) compressions?,"),
                f"{answer}, {'right' if answer == expected else 'wrong'}"]


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problem", default="3k-search-01")
    parser.add_argument("--policy", default="rpc:p=1024")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build" / "pith")
    options = parser.parse_args()
    problems = {}
    for path in sorted((ROOT / "eval" / "pebble").glob("*.jsonl")):
        problems.update((p["id"], p) for p in map(json.loads, path.read_text().splitlines()))
    if options.problem not in problems:
        sys.exit(f"--problem: expected an id of eval/pebble, such as 3k-ledger-00; found {options.problem}")
    problem = problems[options.problem]

    screen = shutil.get_terminal_size((100, 24)).columns
    width = max(20, (screen - 3) // 2)
    print("\n".join(textwrap.wrap(problem["prompt"], screen)) + "\n", flush=True)
    left, right = (Thinker(policy, problem, options, width) for policy in ("full", options.policy))
    print(f"{left.policy:{width}} | {right.policy}\n" + "-" * width + "-+-" + "-" * width, flush=True)
    i = 0
    try:
        while left.more(i) or right.more(i):
            print(f"{left.line(i):{width}} | {right.line(i)}".rstrip(), flush=True)
            i += 1
    except KeyboardInterrupt:  # the programs were interrupted too, and say what they have
        while left.more(i) or right.more(i):
            i += 1

    results = [thinker.results(problem["answer"]) for thinker in (left, right)]
    print()
    print_table([["", "tokens", "tokens/s", "rows, peak", "cache, peak", "compressions", "answer"]] + results)
    rows = [int(cells[3]) for cells in results]
    print(f"\nexpected {problem['answer']}; {options.policy} held {100 * rows[1] / rows[0]:.0f} % of the rows of the full cache")


if __name__ == "__main__":
    main()
