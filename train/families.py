"""The families of puzzles, each with its share of what the model is taught."""

import column
import ledger
import search
import walk

MAKE = {"ledger": ledger.make, "search": search.make, "walk": walk.make, "column": column.make}
SHARE = {"ledger": 0.34, "search": 0.18, "walk": 0.24, "column": 0.24}  # of the puzzles, at any size
