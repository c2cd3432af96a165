"""Which one a person means by a name, an id, or the beginning of either."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from omi_edge.errors import BadInput, NotFound


class Named(Protocol):
    """What has an id and a name."""

    @property
    def id(self) -> str:
        """What the API calls it."""

    @property
    def name(self) -> str:
        """What the owner calls it."""


T = TypeVar("T", bound=Named)


def named(text: str, known: Sequence[T], what: str) -> T:
    """Return the one of this name or id, or the only one whose name or id begins so.

    ``what`` it is, for the message. Raises NotFound with the nearest name, BadInput when several are meant.
    """
    wanted = text.strip().casefold()
    exact = [item for item in known if wanted in (item.id.casefold(), item.name.casefold())]
    found = exact or [
        item for item in known if wanted and any(n.casefold().startswith(wanted) for n in (item.name, item.id))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        same = len({item.name for item in found}) == 1
        which = ", ".join(item.id if same else item.name for item in found)
        raise BadInput(f"{text!r} could be {which}; {'write its id' if same else 'write more of it'}.")
    names = {name.casefold(): name for item in known for name in (item.name, item.id)}
    near = difflib.get_close_matches(wanted, names, 1, 0.5)
    hint = f"did you mean {names[near[0]]}?" if near else f"known: {', '.join(item.name for item in known) or 'none'}."
    raise NotFound(f"no {what} is called {text!r}; {hint}")
