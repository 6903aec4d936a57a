"""Who speaks in a session: labels for finals that hold up no text, all looked at again at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from gateway.session.events import Ended, Final, Refined
from gateway.session.jobs import DecodeJob, JobKind
from gateway.session.ring import Pcm
from gateway.speakers.labels import label_segments
from gateway.speakers.types import Turn
from tandem.errors import TandemError

log = logging.getLogger("tandem.gateway.session")

# A change of speaker within a sentence is believed when both parts are this long, in seconds.
_MIN_PART = 1.0


class SpeakerTracker(Protocol):
    """Speakers of one session, numbered by first appearance."""

    async def embed(self, samples: Pcm) -> object:
        """Voice of one utterance, int16 [n] at 16 kHz. Changes nothing: the utterance may yet go on."""

    def assign(self, index: int, start: float, end: float, voice: object) -> Sequence[Turn]:
        """Who speaks in a final, provisionally; `voice` is what embed gave for it."""

    async def finish(self) -> Mapping[int, Sequence[Turn]]:
        """Who speaks in each final by index after clustering the whole session again."""


class SessionSpeakers:
    """Finals of one session with their speakers. `tell` sends a refinement, or the end, to the client."""

    def __init__(
        self, tracker: SpeakerTracker, tell: Callable[[Refined | Ended], None], *, word_times: bool
    ) -> None:
        self._tracker, self._tell, self._word_times = tracker, tell, word_times
        self._voices: dict[int, asyncio.Task[object]] = {}
        self._finals: dict[int, Final] = {}
        self._labels: set[asyncio.Task[None]] = set()

    def listen(self, job: DecodeJob) -> None:
        """A decode begins: the voice of a final is asked for beside it."""
        if job.kind is not JobKind.FINAL:
            return
        before = self._voices.pop(job.index, None)
        if before is not None:
            before.cancel()
        self._voices[job.index] = asyncio.create_task(_voice(self._tracker, job))

    def final(self, final: Final) -> Final:
        """The final with its speakers if they are known already; else a refinement follows."""
        voice = self._voices.pop(final.index, None)
        self._finals[final.index] = final
        if voice is not None and voice.done():
            return self._shown(self._assign(final, voice.result()))
        if voice is not None:
            self._keep(self._later(final, voice))
        return self._shown(final)

    def finish(self, ended: Ended) -> None:
        """Tells what changes when the whole session is looked at, then the end."""
        self._keep(self._recluster(ended))

    def close(self) -> None:
        """Forget what is still being found out."""
        for task in (*self._voices.values(), *self._labels):
            task.cancel()
        self._voices.clear()

    def _assign(self, final: Final, voice: object) -> Final:
        if voice is not None:
            segment = final.segment
            final = _named(final, self._tracker.assign(final.index, segment.start, segment.end, voice))
        self._finals[final.index] = final
        return final

    async def _later(self, final: Final, voice: asyncio.Task[object]) -> None:
        named = self._assign(final, await voice)
        if named.segment.speaker is not None:
            self._refine(named)

    async def _recluster(self, ended: Ended) -> None:
        current = asyncio.current_task()
        await asyncio.gather(*(task for task in self._labels if task is not current))
        try:
            turns = await self._tracker.finish()
        except TandemError as error:
            log.warning("speakers stay provisional: %s", error)
            turns = {}
        for index, own in sorted(turns.items()):
            final = self._finals.get(index)
            if final is not None and (named := _named(final, own)) != final:
                self._refine(named)
        self._tell(ended)

    def _refine(self, final: Final) -> None:
        shown = self._shown(final)
        self._tell(Refined(shown.index, shown.segment, shown.parts))

    def _shown(self, final: Final) -> Final:
        """Words are there for cutting between them; a client that wants none gets none."""
        if self._word_times:
            return final
        parts = tuple(replace(part, words=()) for part in final.parts)
        return Final(final.index, replace(final.segment, words=()), parts)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._labels.add(task)
        task.add_done_callback(self._labels.discard)


def _named(final: Final, turns: Sequence[Turn]) -> Final:
    """The final by its turns: parts where several people speak, and who speaks longest for the whole."""
    if not turns:
        return final
    whole = replace(final.segment, speaker=None)
    parts = label_segments([whole], turns, min_turn=_MIN_PART)
    totals: dict[str | None, float] = {}
    for part in parts:
        totals[part.speaker] = totals.get(part.speaker, 0.0) + part.end - part.start
    named = replace(whole, speaker=max(totals, key=lambda speaker: totals[speaker]))
    return Final(final.index, named, parts if len(parts) > 1 else ())


async def _voice(speakers: SpeakerTracker, job: DecodeJob) -> object:
    """The voice of a job's audio, or None when it cannot be had: text does not wait for speakers."""
    try:
        return await speakers.embed(job.samples)
    except TandemError as error:
        log.warning("no speaker for utterance %d: %s", job.index, error)
        return None
