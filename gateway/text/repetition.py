"""Repetition guard: finds and removes the loops that language models fall into on hard audio."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A unit of up to 40 characters, four times or more in a row. Lazy, so the shortest unit is found.
_LOOP = re.compile(r"(.{1,40}?)\1{3,}", re.DOTALL)
# Shorter runs are how people speak: "no no no no", "哈哈哈哈".
_MIN_RUN = 20
_MIN_COPIES_OF_ONE_CHAR = 12
_NOT_SPOKEN = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Repetition:
    """text[start:end] is `unit` written again and again."""

    start: int
    end: int
    unit: str

    @property
    def copies(self) -> int:
        return (self.end - self.start) // len(self.unit)


def find_repetition(text: str) -> Repetition | None:
    """The first loop of `text`, also useful on running text, to stop generating."""
    for match in _LOOP.finditer(text):
        unit, run = match.group(1), match.end() - match.start()
        spoken = _NOT_SPOKEN.sub("", unit)
        # Digits are read out in long even runs: phone numbers, account numbers, zeros.
        if run < _MIN_RUN or spoken.isdigit():
            continue
        if len(spoken) <= 1 and run < _MIN_COPIES_OF_ONE_CHAR * len(unit):
            continue
        return Repetition(match.start(), match.end(), unit)
    return None


def _copies_heard(unit: str, ctc_text: str) -> int:
    spoken = _NOT_SPOKEN.sub("", unit).casefold()
    return _NOT_SPOKEN.sub("", ctc_text).casefold().count(spoken) if spoken else 0


def collapse_repetitions(text: str, ctc_text: str | None = None, settled: int = 0) -> str:
    """`text` with every loop cut to one copy, or to as many as `ctc_text` heard; what follows stays.

    Its first `settled` characters are what somebody has been promised, and stay too.
    """
    kept = ""
    while (loop := find_repetition(text)) is not None:
        copies = 1 if ctc_text is None else max(1, _copies_heard(loop.unit, ctc_text))
        promised = settled - len(kept) - loop.start
        copies = max(copies, -(-promised // len(loop.unit)))
        kept += text[: loop.start] + loop.unit * min(copies, loop.copies)
        text = text[loop.end :]
    return kept + text
