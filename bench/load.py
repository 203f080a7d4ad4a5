#!/usr/bin/env python3
"""Load on a running pith serve: clients that stream, with mixed lengths, policies and aborts.

    bench/load.py URL [--clients 64] [--seconds 120] [--abort 0.1] [--prompt 200] [--tokens 300]
                      [--policies "full;rpc:p=256,r=32"] [--pid PID] [--json]

Counts answers, aborts, refusals (429 is designed) and errors (anything else), and measures what clients see: tokens per
second, time to the first token, time between tokens. With --pid it also compares the server's open files, resident memory and
cached pages before and after. One process, no threads: the server shares the machine with it.
"""
import argparse
import asyncio
import json
import os
import random
import time
import urllib.parse
import urllib.request


class Tally:
    def __init__(self):
        self.answers = self.aborts = self.refused = self.tokens = 0
        self.errors, self.first, self.between = [], [], []


async def one_answer(host, port, body, abort_after, tally):
    """One request on a connection of its own; abort_after: events after which the client hangs up, or None."""
    reader, writer = await asyncio.open_connection(host, port)
    data = json.dumps(body).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\n"
                 b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    begun = last = time.perf_counter()
    n_events, finished = 0, False
    try:
        status = await reader.readline()
        if b" 429 " in status:
            tally.refused += 1
            await asyncio.sleep(0.2)  # a polite client's pause, shorter than the header asks for
            return
        if b" 200 " not in status:
            tally.errors.append(status.decode(errors="replace").strip() or "closed")
            return
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                finished = True
                break
            if b'"error"' in line:
                tally.errors.append(line.decode(errors="replace").strip())
                return
            now = time.perf_counter()
            (tally.between if n_events else tally.first).append(now - (last if n_events else begun))
            last = now
            n_events += 1
            tally.tokens += 1
            if n_events == abort_after:
                tally.aborts += 1
                return
        if finished:
            tally.answers += 1
        else:
            tally.errors.append("the stream ended early")
    finally:
        writer.close()


async def client(host, port, args, seed, until, tally):
    rng = random.Random(seed)
    policies = args.policies.split(";")
    while time.perf_counter() < until:
        words = rng.choices("alpha beta gamma delta one two three".split(), k=rng.randint(args.prompt // 2, args.prompt))
        tokens = rng.randint(max(1, args.tokens // 4), args.tokens)
        body = {"prompt": " ".join(words), "max_tokens": tokens, "stream": True, "ignore_eos": True, "seed": rng.randrange(1 << 30),
                "cache_policy": rng.choice(policies)}
        abort_after = rng.randint(1, max(1, tokens // 2)) if rng.random() < args.abort else None
        try:
            await one_answer(host, port, body, abort_after, tally)
        except OSError as error:
            tally.errors.append(repr(error))


def quantile(values, q):
    values = sorted(values)
    return 1000 * values[min(len(values) - 1, int(q * len(values)))] if values else 0


def state_of(url, pid):
    text = urllib.request.urlopen(url + "/metrics").read().decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    state = {name: int(found["pith_" + name]) for name in ("running", "waiting", "cache_used_bytes", "cache_promised_bytes")}
    if pid:
        state["files"] = len(os.listdir(f"/proc/{pid}/fd"))
        with open(f"/proc/{pid}/statm") as f:
            state["resident_mib"] = int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)
    return state


async def run(args):
    where = urllib.parse.urlparse(args.url)
    tally, begun = Tally(), time.perf_counter()
    before = state_of(args.url, args.pid)
    await asyncio.gather(*[client(where.hostname, where.port, args, seed, begun + args.seconds, tally)
                           for seed in range(args.clients)])
    seconds = time.perf_counter() - begun
    for _ in range(100):  # the last cancelled ones end with the step they are in
        after = state_of(args.url, args.pid)
        if after["running"] + after["waiting"] == 0:
            break
        await asyncio.sleep(0.05)
    return {
        "clients": args.clients, "seconds": round(seconds, 1), "answers": tally.answers, "aborted": tally.aborts,
        "refused_429": tally.refused, "errors": len(tally.errors), "tokens_per_second": round(tally.tokens / seconds, 1),
        "first_token_ms": {q: round(quantile(tally.first, q / 100), 1) for q in (50, 99)},
        "next_token_ms": {q: round(quantile(tally.between, q / 100), 2) for q in (50, 99)},
        "before": before, "after": after,
    }, tally.errors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for name, value in (("clients", 64), ("seconds", 120), ("prompt", 200), ("tokens", 300), ("pid", 0)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--abort", type=float, default=0.1)
    parser.add_argument("--policies", default="full;rpc:p=64,r=16,c=4;window:p=64,r=16,c=4;random:p=64,r=16,c=4")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result, errors = asyncio.run(run(args))
    if args.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:18} {value}")
    for error in sorted(set(errors))[:10]:
        print("error:", error)
    raise SystemExit(1 if errors else 0)


if __name__ == "__main__":
    main()
