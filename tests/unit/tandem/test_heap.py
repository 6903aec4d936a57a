"""tandem.heap: what a tier tells Python about objects that stay."""

from __future__ import annotations

import gc
import weakref

from tandem.heap import settled_objects


class _Cycle:
    """Only a search for garbage can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_settled_objects_are_searched_again_when_the_tier_has_stopped() -> None:
    settled, fresh = _Cycle(), _Cycle()
    old, new = weakref.ref(settled), weakref.ref(fresh)
    del fresh
    with settled_objects():
        del settled
        later = _Cycle()
        latest = weakref.ref(later)
        del later
        gc.collect()
        assert new() is None, "garbage from before is freed first"
        assert old() is not None, "what was there is left alone"
        assert latest() is None, "what came later is freed as ever"
    gc.collect()
    assert old() is None
