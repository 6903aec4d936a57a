"""Follows an answer through a draft of it: which draft tokens are likely to come next.

The draft (what CTC alone heard) has words too many, too few and wrong. The place in it is where its beginning
is closest to the answer so far, by edit distance; among equally close places the furthest, because a wrong
word is likelier than a missing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

SETTLED_AFTER = 4
"""Tokens in a row that equal the draft's: then the place is certain, and following it costs a comparison."""
TRUST = 2
"""After a disagreement one id is proposed, and this many more for each token that is the draft's again."""
TAIL = 3
"""Tokens at the end of a prompt by which an answer already begun is found in the draft."""


class DraftFollower:
    """One answer's place in its draft."""

    def __init__(self, draft: Sequence[int]) -> None:
        self._draft = list(draft)
        self._ids = np.array(draft, np.int64)
        self._columns = np.arange(len(draft) + 1)
        self._place = 0
        self._costs: npt.NDArray[np.int64] | None = None
        """Edit distance of the answer to the draft's first j tokens [len + 1]; None while certain."""
        self._run = 0

    @property
    def has_draft(self) -> bool:
        """False when there never was one."""
        return bool(self._draft)

    def propose(self, count: int) -> list[int]:
        """At most `count` ids that may come next; none when the draft is used up."""
        return self._draft[self._place : self._place + count]

    def propose_likely(self, count: int) -> list[int]:
        """The same, but few where the answer has just left the draft: for engines to which an id is work."""
        return self.propose(count if self._costs is None else min(count, 1 + TRUST * self._run))

    def accept(self, token_ids: Iterable[int]) -> None:
        """Move on by these tokens of the answer."""
        for token in token_ids if self._draft else ():
            if self._costs is None and self._draft[self._place : self._place + 1] == [token]:
                self._place += 1
            else:
                self._search(token)

    def _search(self, token: int) -> None:
        costs = self._costs
        if costs is None:
            costs, self._run = np.abs(self._columns - self._place), 0
        costs = self._extended(costs, token)
        self._place = int(np.flatnonzero(costs == costs.min())[-1])
        follows = self._place > 0 and self._draft[self._place - 1] == token
        self._run = self._run + 1 if follows else 0
        self._costs = costs if self._run < SETTLED_AFTER else None

    def _extended(self, costs: npt.NDArray[np.int64], token: int) -> npt.NDArray[np.int64]:
        """The row of edit distances [len + 1] after one more token of the answer."""
        fresh = costs + 1
        fresh[1:] = np.minimum(fresh[1:], costs[:-1] + (self._ids != token))
        # Skipping draft tokens costs one each: a running minimum along the row.
        row: npt.NDArray[np.int64] = np.minimum.accumulate(fresh - self._columns) + self._columns
        return row


def remaining(draft: Sequence[int], prompt_end: Sequence[int]) -> tuple[int, ...]:
    """The draft without what the prompt already says, where its last tokens occur in the draft."""
    tail = tuple(prompt_end[-TAIL:])
    for end in range(TAIL, len(draft) + 1):
        if tuple(draft[end - TAIL : end]) == tail:
            return tuple(draft[end:])
    return tuple(draft)
