"""The families of puzzles, each with its share of what the model is taught."""

import column
import ledger
import limits
import search
import walk

MAKE = {"ledger": ledger.make, "search": search.make, "walk": walk.make, "column": column.make}
SHARE = {"ledger": 0.28, "search": 0.16, "walk": 0.32, "column": 0.24}  # of the puzzles, at any size
# Training alone takes so many of its puzzles from these besides: what a puzzle asks for seldom and gets wrong while the rest
# is right. Held-out puzzles are drawn by SHARE.
PRACTICE = 0.3
PRACTISED = {  # make: its share
    lambda rng, size: limits.make(rng, size, reuse=rng.choice((0.04, 0.1))): 0.26,
    lambda rng, size: walk.make(rng, size, back=True): 0.16,
    lambda rng, size: column.make_sum(rng, size, "remainders"): 0.24,
    lambda rng, size: column.make_sum(rng, size, "products"): 0.14,
    lambda rng, size: column.make_sum(rng, size, "bases"): 0.05,
    lambda rng, size: column.make_sum(rng, min(size, column.LONGEST_POWER), "power"): 0.15}
KINDS = {  # what must be remembered is looked at all the time (standing), or waits for its use (waiting)
    "limits": "standing", "tree": "waiting", "search": "standing", "ends": "standing", "back": "waiting",
    "balance": "standing", "jobs": "standing", "products": "waiting", "remainders": "waiting", "bases": "waiting",
    "power": "waiting"}
