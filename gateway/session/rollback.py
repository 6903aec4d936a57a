"""Which part of a growing hypothesis is confirmed: the guide's two stages with rollback, made monotone.

Guide section 4: the first decodes of an utterance start from nothing, later ones continue the confirmed
text, and the last characters of every hypothesis stay open. Here text is confirmed only when two decodes
in a row agree on it, it never shrinks, and it ends between words in every script.
"""

from __future__ import annotations

from gateway.text.units import text_units

_MEANINGFUL_UNITS = 2


def common_length(one: str, other: str) -> int:
    """How many characters two texts have in common from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def confirmed_prefix(text: str, limit: int) -> str:
    """The longest prefix of at most `limit` characters that ends between words."""
    end = 0
    for unit in text_units(text):
        if unit.end > limit:
            break
        end = unit.end
    # Punctuation directly after the word is confirmed with it.
    while 0 < end < min(limit, len(text)) and not text[end].isspace() and not text[end].isalnum():
        end += 1
    return text[:end]


class Rollback:
    """Hypotheses of one utterance. `fixed` begins every later hypothesis and only grows."""

    def __init__(self, rollback_chars: int, stage1_decodes: int) -> None:
        self._rollback = rollback_chars
        self._stage1 = stage1_decodes
        self._contradicted = False
        self.fixed = ""
        self.hypothesis = ""
        self.covered = 0
        self.decodes = 0

    def previous_text(self) -> str:
        """What the next decode continues: nothing in stage 1, the confirmed text in stage 2."""
        stage2 = self.decodes >= self._stage1 or self._contradicted
        return self.fixed if stage2 else ""

    def observe(self, text: str, covered: int, *, may_confirm: bool = True) -> None:
        """A decode of the utterance up to sample `covered` gave `text`.

        Without `may_confirm` it is shown only: the utterance may yet be cut before `covered`.
        """
        self.decodes += 1
        if not text.startswith(self.fixed):
            # Later decodes have to continue what the client was promised.
            self._contradicted = True
            return
        before, self.hypothesis, self.covered = self.hypothesis, text, covered
        limit = min(common_length(before, text), len(text) - self._rollback)
        # What is a word in one of them may be the beginning of a longer one in the other.
        candidate = min(confirmed_prefix(before, limit), confirmed_prefix(text, limit), key=len)
        grown = may_confirm and len(candidate) > len(self.fixed)
        if grown and len(text_units(candidate)) >= _MEANINGFUL_UNITS:
            self.fixed = candidate
