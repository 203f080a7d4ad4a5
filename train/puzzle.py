"""What a puzzle is, and which puzzles are kept out of training."""

import dataclasses
import zlib

HELD_OUT = 16  # one puzzle in so many is never trained on


@dataclasses.dataclass
class Puzzle:
    family: str  # "ledger"
    kind: str  # what within the family: "power"
    prompt: str  # what the user says
    trace: str  # what is thought, with slips marked
    answer: int  # 0 to 999

    @property
    def closing(self):
        return f"The answer is \\boxed{{{self.answer}}}."


def is_held_out(prompt):
    """Decided by the prompt alone: training drops these, evaluation takes nothing else, so the two cannot meet."""
    return zlib.crc32(prompt.encode()) % HELD_OUT == 0

