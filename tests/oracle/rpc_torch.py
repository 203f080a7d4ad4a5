#!/usr/bin/env python3
"""The oracle of rpc_oracle.py with its arithmetic left to PyTorch, on a GPU where there is one.

compat=1 is computed in bf16, operation by operation as the authors' implementation does it; the clean semantics in f32.
Same command line, same lines; test_rpc_oracle takes it in place of the other one when PITH_RPC_ORACLE names it. When
and whose queries is rpc_oracle.py's, as is the bound of the error: PyTorch's results have to lie within it too, or this
stops. Where the bound leaves a kept set open, it is as open here: a case ends there. PyTorch's top-k has no rule for
ties, so the rows are chosen by ours, and how many sets had a tie at their border is printed behind all cases.
"""
import sys

import numpy as np
import torch

import rpc_oracle

device = "cuda" if torch.cuda.is_available() else "cpu"
seen = {"bf16": [0, 0], "f32": [0, 0]}  # sets, and those with a tie at the border


def pooled(s, params):
    """s (sets, S)."""
    if params.pool == "none":
        return s
    half = params.width // 2
    if params.pool == "max":
        return torch.nn.functional.max_pool1d(s[None], params.width, 1, half)[0]
    return torch.nn.functional.avg_pool1d(s[None], params.width, 1, half, count_include_pad=params.compat)[0]


def scores(q, k, params):
    """q (r, H, d), k (G, S, d) -> (sets, S)."""
    n_heads, n_lanes = q.shape[1], k.shape[0]
    k = k.repeat_interleave(n_heads // n_lanes, 0)
    x = torch.matmul(q.transpose(0, 1), k.transpose(1, 2)) / q.shape[2] ** 0.5
    s = torch.softmax(x, -1, dtype=torch.float32).to(q.dtype).sum(-2)
    if params.agg == "layer":
        s = s.mean(0, keepdim=True)
    else:
        of_group = s.view(n_lanes, n_heads // n_lanes, -1)
        s = of_group.mean(1) if params.agg == "group" else of_group.amax(1)
    return pooled(s, params)


def importance(q, k, params, case):
    bounded = bounded_importance(q, k, params, case)
    dtype = torch.bfloat16 if params.compat else torch.float32
    tensor = lambda x: torch.tensor(x, dtype=torch.float64).to(device=device, dtype=dtype)
    found = scores(tensor(q), tensor(np.array(k)), params).double().cpu().numpy()
    for (x, e), ours in zip(bounded, found, strict=True):
        beyond = np.abs(ours - x) > e
        if beyond.any():
            sys.exit(f"{params.__dict__}: PyTorch has {ours[beyond][0]!r}, expected {x[beyond][0]!r} +- {e[beyond][0]!r}")
    return [(ours, e) for (_, e), ours in zip(bounded, found)]


def best(x, e, n, case):
    kept = chosen_best(x, e, n, case)
    dropped = np.setdiff1d(np.arange(x.size), kept)
    kind = seen["bf16" if np.array_equal(rpc_oracle.bf16(x), x) else "f32"]
    kind[0] += 1
    kind[1] += dropped.size > 0 and x[kept].min() == x[dropped].max()
    return kept


bounded_importance, chosen_best = rpc_oracle.importance, rpc_oracle.best
rpc_oracle.importance, rpc_oracle.best = importance, best

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: rpc_torch.py CASES.json")
    if device == "cuda":
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    rpc_oracle.main(sys.argv[1])
    for name, (n, ties) in seen.items():
        print(f"{name} on {device}: {n} sets, {ties} with a tie at the border", file=sys.stderr)
