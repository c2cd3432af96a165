"""What became of what a microphone heard: the truth that a client's own story can be compared with."""

from __future__ import annotations

import msgspec

from omi_edge.virtual.faults import Fate, Truth

Span = tuple[int, int]
"""Start and end, in boot time of the pendant's clock."""


class Ledger:
    """Takes frames in the order in which their fate is decided; tells them in the order of their times."""

    def __init__(self) -> None:
        self._truths: list[Truth] = []

    def note(self, span: Span, fate: Fate) -> None:
        """Take one frame."""
        last = self._truths[-1] if self._truths else None
        if last is not None and last.fate is fate and last.end_us == span[0]:
            self._truths[-1] = Truth(last.start_us, span[1], fate)
        else:
            self._truths.append(Truth(span[0], span[1], fate))

    def record(self) -> list[Truth]:
        """Return everything so far, neighbours of one fate joined."""
        found: list[Truth] = []
        for truth in sorted(self._truths, key=lambda truth: truth.start_us):
            if found and found[-1].fate is truth.fate and found[-1].end_us == truth.start_us:
                found[-1] = msgspec.structs.replace(found[-1], end_us=truth.end_us)
            else:
                found.append(truth)
        return found
