"""Result messages of the real-time WebSocket: locked sentences and the running partial, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.session.events import Cursors, Ended, Final, Partial, Refined, SpeechBegan, SpeechEnded, Update
from gateway.text.replace import apply_replacements
from tandem.results import Segment

_SPEAKER = "SPK"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


class Results:
    """What one session has said so far. Every message repeats all sentences, as the protocol has it.

    With `per_utterance` (endpoint mode "client") messages hold the sentences since the last COMMIT only,
    and each COMMIT is answered by a final message.
    """

    def __init__(self, replacements: Mapping[str, str], *, per_utterance: bool = False) -> None:
        self.replacements = replacements
        self._per_utterance = per_utterance
        self._sentences: dict[int, str] = {}
        self._partial: Partial | None = None
        self._speech_start: float | None = None
        self._commits: list[int] = []

    def committed(self, index: int) -> None:
        """The client ended utterance `index`."""
        self._commits.append(index)

    def committed_nothing(self, cursors: Cursors) -> str | None:
        """The answer to a COMMIT without audio; None where it comes after that to an earlier COMMIT."""
        if not self._commits:
            return self._result(cursors, final=True)
        self._commits.append(self._commits[-1])
        return None

    def messages(self, update: Update) -> list[str]:
        """The messages that an update brings about."""
        event = update.event
        if isinstance(event, SpeechBegan):
            self._speech_start = event.at
            return []
        if isinstance(event, SpeechEnded):
            self._speech_start = None
            return []
        if isinstance(event, Partial):
            self._partial = event
            return [self._result(update.cursors)]
        if isinstance(event, Final):
            return self._final(event, update.cursors)
        if isinstance(event, Refined):
            self._sentences[event.index] = self._locked(event)
            return [self._result(update.cursors)]
        if isinstance(event, Ended):
            self._partial = None
            # In this mode the client has the final message of everything it committed.
            told = update.cursors.final if self._per_utterance else 0.0
            return [self._result(update.cursors, final=True)] if event.duration > told else []
        return []

    def progress(self, cursors: Cursors) -> str:
        """Nothing new but the time."""
        return self._result(cursors)

    def _final(self, event: Final, cursors: Cursors) -> list[str]:
        if self._partial is not None and self._partial.index <= event.index:
            self._partial = None
        if event.segment.text:
            self._sentences[event.index] = self._locked(event)
        if not self._commits or event.index < self._commits[0]:
            return [self._result(cursors)]
        answers = []
        # Of the COMMIT that ended the utterance, then of those without audio that came after it.
        while self._commits and self._commits[0] <= event.index:
            del self._commits[0]
            answers.append(self._result(cursors, final=True))
            self._sentences.clear()
        return answers

    def _locked(self, event: Final | Refined) -> str:
        return ", ".join(map(self._sentence, event.sentences))

    def _sentence(self, segment: Segment) -> str:
        sentence: dict[str, Any] = {
            "text": apply_replacements(segment.text, self.replacements),
            "start": _ms(segment.start),
            "end": _ms(segment.end),
        }
        if segment.speaker is not None:
            sentence["spk"] = int(segment.speaker.removeprefix(_SPEAKER))
        return json.dumps(sentence, ensure_ascii=False)

    def _result(self, cursors: Cursors, *, final: bool = False) -> str:
        partial = self._partial
        text, start = "", cursors.received if self._speech_start is None else self._speech_start
        if final:
            start = 0.0
        elif partial is not None:
            text, start = partial.text, partial.start
        rest = {
            "partial": text,
            "partial_start_ms": _ms(start),
            "duration_ms": _ms(cursors.received),
            "is_final": final,
        }
        sentences = ", ".join(self._sentences.values())
        return f'{{"sentences": [{sentences}], {json.dumps(rest, ensure_ascii=False)[1:]}'
