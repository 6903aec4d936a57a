"""Which tests one process of `pytest -n` runs: those of a module, and all that share running services."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("tests/clients", "tests/docs")
"""Their modules share the services of the package's conftest.py."""
_SERVICES = re.compile(r"\b(?:(http|live|demo|secure)_services|decoder: RunningDecoder)\b")
"""What a module says that uses services of the whole run."""


class ByServices(LoadScopeScheduling):  # type: ignore[misc]  # the package has no types
    """Starting services takes longer than most tests of them: each is started in one process only."""

    def _split_scope(self, nodeid: str) -> str:
        return _company(nodeid.partition("::")[0])


@functools.cache
def _company(module: str) -> str:
    """The name of the group that a module, given by its path in the tree, belongs to."""
    shared = _SERVICES.search((_ROOT / module).read_text(encoding="utf-8"))
    if shared is not None:
        return shared[0]
    folder = module.rpartition("/")[0]
    return folder if folder in _PACKAGES else module
