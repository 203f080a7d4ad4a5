"""The families of puzzles, each with its share of what the model is taught."""

import column
import ledger
import search
import walk

MAKE = {"ledger": ledger.make, "search": search.make, "walk": walk.make, "column": column.make}
SHARE = {"ledger": 0.28, "search": 0.16, "walk": 0.32, "column": 0.24}  # of the puzzles, at any size
KINDS = {  # what must be remembered is looked at all the time (standing), or waits for its use (waiting)
    "limits": "standing", "tree": "waiting", "search": "standing", "ends": "standing", "back": "waiting",
    "balance": "standing", "jobs": "standing", "products": "waiting", "remainders": "waiting", "bases": "waiting",
    "power": "waiting"}
