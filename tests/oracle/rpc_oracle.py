#!/usr/bin/env python3
"""Oracle for the policy `rpc`: which rows survive, event by event, from given queries and keys.

Written from the method's description (docs/policies.md), in float64, token by token and head by head, without looking
at the C code. Two semantics:

  clean   the paper's text: last R queries, each once, softmax over the candidates only
  compat  the authors' implementation, by replaying its counters and rounding to bf16 wherever it holds bf16

From Python: replay(). From a shell: rpc_oracle.py CASES.json prints one JSON line per event in the form of
`pith run --trace`, "seq" being the number of the case:

  {"event":"compress","seq":0,"step":20,"layer":0,"head":null,"rows_before":25,"rows_after":13,"kept":[0,1,...]}

CASES.json is {"cases": [case, ...]}, a case being

  spec         "rpc:p=16,r=4,..."; options that are not named have the policy's defaults
  n_layers, n_heads, n_kv_heads, head_dim
  turns        [[n_prompt, n_generated], ...]: tokens that entered the cache, turn by turn
  queries      (n_layers, N, n_heads, head_dim) for all N tokens of the timeline, after RoPE
  keys         (n_layers, N, n_kv_heads, head_dim), after RoPE, as the cache holds them
  exact        true: every operation is exact in f32 as well, so ties are real and broken by rule
  exact_dots   true: only q.k and its division by sqrt(d) are exact in f32

Arrays are nested lists, {"f32": FILE, "offset": FLOATS} for raw little-endian floats, or {"npz": FILE, "name": NAME};
files are relative to CASES.json. Without `exact`, each step's f32 error is bounded, and when the bound leaves the kept
set open, the case ends with {"event":"ambiguous","seq":0}.
"""
import json
import math
import os
import sys

import numpy as np

U = 2.0**-24  # unit roundoff of f32


class Params:
    """Options of the spec, by their names there."""

    def __init__(self, spec):
        name, _, options = spec.partition(":")
        assert name == "rpc", spec
        o = dict(p="1024", r="32", c="4", pool="avg7", agg="layer", sel="recent", compat="0")
        for option in filter(None, options.split(",")):
            key, value = option.split("=")
            assert key in o, spec
            o[key] = value
        self.P, self.R = int(o["p"]), int(o["r"])
        self.compat = o["compat"] == "1"
        self.agg, self.sel = o["agg"], o["sel"]
        self.pool = "none" if o["pool"] == "none" else o["pool"][:3]
        self.width = 1 if o["pool"] == "none" else int(o["pool"][3:])
        if self.compat:
            self.T = int(self.P / float(o["c"]))
        else:
            whole, _, part = o["c"].partition(".")
            self.T = self.P * 10 ** len(part) // int(whole + part)


# ------------------------------------------------------------------------------------------------ scores with errors
# A pair (x, e): the value in float64 and a bound of |f32 result - x|.


class Undecided(Exception):
    """The error bound leaves the result open."""


def bf16(x):
    """Nearest bfloat16, ties to even; all magnitudes met here are normal or zero."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 256.0), exponent - 8)


def round_bf16(x, e):
    y = bf16(x)
    return y, np.maximum(bf16(x + e) - y, y - bf16(x - e))  # 0 unless a rounding boundary is within e


def add_up(x, e, axis):
    """Sum of non-negative entries. No error of its own where bf16 entries have sums that fit the 24 bits of f32."""
    total = x.sum(axis)
    _, exponent = np.frexp(np.where(x > 0, x, 1.0))
    lowest = np.where(x > 0, exponent - 8, 900).min(axis)  # entries in bf16 are multiples of 2^lowest
    fits = (bf16(x) == x).all(axis) & (total < np.ldexp(2.0**24, lowest))
    return total, e.sum(axis) + np.where(fits, 0.0, x.shape[axis] * U * total)


def divide(x, e, n):
    q = x / n
    representable = q.astype(np.float32).astype(np.float64) == q
    return q, e / n + np.where(representable & (e == 0), 0.0, 2 * U * np.abs(q))


def weights(q, k, case, compat):
    """Softmax over the candidates: q (r, d), k (S, d) -> (r, S), with its error."""
    root = math.sqrt(q.shape[1])
    x = q @ k.T
    e = np.zeros_like(x) if case.exact_dots else (q.shape[1] + 4) * U * (np.abs(q) @ np.abs(k).T)
    if compat:
        x, e = round_bf16(x, e)
        x, e = divide(x, e, root)
        x, e = round_bf16(x, e)
    else:
        x, e = divide(x, e, root)
    w = np.exp(x - x.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    # exp of a shifted argument: twice its absolute error, plus the rounding of the shift, plus some units for exp
    # itself, for the sum over the candidates (partial sums of at most S/8 entries) and for the division
    span = x.max(1, keepdims=True) - x
    relative = np.expm1(2 * e.max(1, keepdims=True) + U * span) + (x.shape[1] / 8 + 16) * U
    e = np.zeros_like(w) if case.exact else w * relative
    return round_bf16(w, e) if compat else (w, e)


def pool(x, e, params):
    if params.pool == "none":
        return x, e
    half, n = params.width // 2, x.size
    out_x, out_e = np.empty(n), np.empty(n)
    for j in range(n):
        near = slice(max(0, j - half), min(n, j + half + 1))
        if params.pool == "max":
            out_x[j], out_e[j] = x[near].max(), e[near].max()
        else:
            count = params.width if params.compat else near.stop - near.start
            total, error = add_up(x[near], e[near], 0)
            out_x[j], out_e[j] = divide(total, error, count)
    return round_bf16(out_x, out_e) if params.compat else (out_x, out_e)


def importance(q, k, params, case):
    """q (r, H, d), k: list of G arrays (S, d) -> list of (score, error), one per set."""
    n_heads, n_lanes = q.shape[1], len(k)
    group = n_heads // n_lanes
    heads = []
    for h in range(n_heads):
        x, e = add_up(*weights(q[:, h], k[h // group], case, params.compat), 0)
        heads.append(round_bf16(x, e) if params.compat else (x, e))

    def mean(members):
        x, e = add_up(np.array([m[0] for m in members]), np.array([m[1] for m in members]), 0)
        x, e = divide(x, e, len(members))
        return round_bf16(x, e) if params.compat else (x, e)

    def largest(members):
        return np.max([m[0] for m in members], 0), np.max([m[1] for m in members], 0)

    if params.agg == "layer":
        sets = [mean(heads)]
    else:
        reduce = mean if params.agg == "group" else largest
        sets = [reduce(heads[g * group : (g + 1) * group]) for g in range(n_lanes)]
    return [pool(x, e, params) for x, e in sets]


def best(x, e, n, case):
    """Indices of the n best, ties to the lower index, ascending."""
    order = sorted(range(x.size), key=lambda j: (-x[j], j))
    kept, dropped = sorted(order[:n]), order[n:]
    if not case.exact:
        unsure = (e[kept][:, None] + e[dropped]) > 0  # pairs of two certain scores may tie
        if np.any(unsure & ((x - e)[kept][:, None] <= (x + e)[dropped])):
            raise Undecided
    return kept


# -------------------------------------------------------------------------------------------------- the two semantics


class Clean:
    """When it compresses and whose queries it uses, by the method's text."""

    def __init__(self, params):
        self.params, self.k = params, 0
        self.next = params.P + params.R
        self.generated, self.prompt = [], []

    def prefill(self, positions):
        self.prompt = positions

    def token(self, position, n_rows):
        """A generated token; n_rows: rows of a lane before it. Returns the positions of the queries when due."""
        self.generated.append(position)
        if len(self.generated) < self.next:
            return None
        self.next += self.params.P
        self.k += 1
        if self.params.sel == "new":
            return self.generated[-1:]
        if self.params.sel == "prompt":
            return self.prompt[-self.params.R :]
        return self.generated[-self.params.R :]


class Reference:
    """The same by the counters of the authors' code. More turns than one, which it cannot run, continue them."""

    def __init__(self, params):
        self.params, self.k = params, 0
        self.prompt_len, self.gathered = 0, []

    def prefill(self, positions):
        self.prompt_len += len(positions)

    def token(self, position, n_rows):
        P, R, T = self.params.P, self.params.R, self.params.T
        target = n_rows - self.prompt_len - self.k * T - R
        if self.params.sel == "recent" and target > P - R:
            self.gathered.append(position)
        if target != P - 1:
            return None
        used = self.gathered + [position]
        self.gathered = []
        self.k += 1
        return used


class Case:
    def __init__(self, exact=False, exact_dots=False):
        self.exact, self.exact_dots = exact, exact or exact_dots


def replay(spec, turns, queries, keys, exact=False, exact_dots=False):
    """Yields (step, layer, head, rows_before, kept positions) in the order of a trace; head is None when one set serves
    the layer. queries (L, N, H, d), keys (L, N, G, d). Raises Undecided (see the head of this file)."""
    params, case = Params(spec), Case(exact, exact_dots)
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    if params.compat:
        queries, keys = bf16(queries), bf16(keys)
    n_layers, n_lanes = keys.shape[0], keys.shape[2]
    method = (Reference if params.compat else Clean)(params)
    lanes = [[[] for _ in range(n_lanes)] for _ in range(n_layers)]  # positions by row
    is_prompt, step, position = [], 0, 0

    for n_prompt, n_generated in turns:
        for lane in (lane for layer in lanes for lane in layer):
            lane.extend(range(position, position + n_prompt))
        is_prompt += [True] * n_prompt
        method.prefill(list(range(position, position + n_prompt)))
        position += n_prompt
        for _ in range(n_generated):
            used = method.token(position, len(lanes[0][0]))
            for lane in (lane for layer in lanes for lane in layer):
                lane.append(position)
            is_prompt.append(False)
            position += 1
            step += 1
            if used is None:
                continue
            for layer in range(n_layers):
                candidates = [[t for t in lane if not is_prompt[t]][: -params.R] for lane in lanes[layer]]
                k = [keys[layer, candidates[g], g] for g in range(n_lanes)]
                sets = importance(queries[layer, used], k, params, case)
                kept = [best(x, e, method.k * params.T, case) for x, e in sets]
                for g in range(n_lanes):
                    chosen = kept[g if len(kept) > 1 else 0]
                    evicted = set(candidates[g]) - {candidates[g][j] for j in chosen}
                    before = len(lanes[layer][g])
                    lanes[layer][g] = [t for t in lanes[layer][g] if t not in evicted]
                    if len(kept) > 1:
                        yield step, layer, g, before, lanes[layer][g]
                    elif g == n_lanes - 1:
                        yield step, layer, None, before, lanes[layer][g]


# -------------------------------------------------------------------------------------------------------- command line


def load(array, shape, folder):
    if isinstance(array, dict) and "f32" in array:
        count = math.prod(shape)
        data = np.fromfile(
            os.path.join(folder, array["f32"]), "<f4", count=count, offset=4 * array.get("offset", 0)
        )
    elif isinstance(array, dict):
        data = np.load(os.path.join(folder, array["npz"]))[array["name"]]
    else:
        data = np.array(array)
    return data.reshape(shape)


def main(path):
    with open(path, encoding="utf-8") as f:
        cases = json.load(f)["cases"]
    folder = os.path.dirname(path)
    for seq, c in enumerate(cases):
        n = sum(a + b for a, b in c["turns"])
        q = load(c["queries"], (c["n_layers"], n, c["n_heads"], c["head_dim"]), folder)
        k = load(c["keys"], (c["n_layers"], n, c["n_kv_heads"], c["head_dim"]), folder)
        flags = {name: c.get(name, False) for name in ("exact", "exact_dots")}
        try:
            for step, layer, head, before, kept in replay(c["spec"], c["turns"], q, k, **flags):
                line = dict(event="compress", seq=seq, step=step, layer=layer, head=head, rows_before=before)
                line.update(rows_after=len(kept), kept=kept)
                print(json.dumps(line, separators=(",", ":")))
        except Undecided:
            print(json.dumps(dict(event="ambiguous", seq=seq), separators=(",", ":")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: rpc_oracle.py CASES.json")
    main(sys.argv[1])
