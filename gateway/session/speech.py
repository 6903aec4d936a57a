"""Stretches of speech in the audio of one session: the one expected, the one that runs, those that ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.session.config import SessionOptions
from gateway.session.endpoints import CLIENT_LEAD, Endpoints
from gateway.session.events import SpeechBegan, SpeechEnded
from gateway.session.jobs import Lane
from gateway.session.lanes import Lanes
from gateway.session.ring import AudioRing, Pcm
from gateway.session.utterance import SAMPLE_RATE, Utterance
from gateway.vad.detector import Boundary
from gateway.vad.fsmn import FrameScores
from tandem.results import Segment

# What a client-ended utterance without any detected speech may hold.
_UNHEARD = 5 * SAMPLE_RATE
_MIN_COMMIT = SAMPLE_RATE // 10
# How long words may wait for the detector to be sure of their speech too.
_DOUBT = 3 * SAMPLE_RATE // 10


class Speech:
    """The session's audio and its utterances.

    expected: it may be about to begin; the client knows nothing of it. running: told to the client, until its
    endpoint. closed: wait for their finals. With `ctc`, expected speech is listened to, and begins with words
    in it as soon as that is likely, before the detector is sure. `tell` gets begins and ends; after an end,
    `ended` is called before anything else happens.
    """

    def __init__(
        self,
        options: SessionOptions,
        max_segment: float,
        lanes: Lanes,
        tell: Callable[[SpeechBegan | SpeechEnded], None],
        ended: Callable[[], None],
        *,
        ctc: bool,
    ) -> None:
        self.ring = AudioRing()
        self.endpoints = Endpoints(options, max_segment)
        self.expected: Utterance | None = None
        self.running: Utterance | None = None
        self.closed: deque[Utterance] = deque()
        self.next_index = 0
        self._options, self._max_segment = options, max_segment
        self._lanes, self._tell, self._ended, self._ctc = lanes, tell, ended, ctc
        self._free_from = 0
        self._was_wrong = False

    def hear(self, block: Pcm, scores: FrameScores, *, last: bool = False) -> None:
        """Adds int16 samples [n]; `scores` are those of all frames that have become known."""
        self.ring.append(block)
        for event in self.endpoints.push(scores, last=last):
            if event is None:
                self._watch_pause()
            elif event.boundary is Boundary.START:
                self._begin(event.at)
            else:
                self.end(event.at, cut=event.cut)
        self._doubt()
        self._expect()
        self.begin_by_words()
        self._forget()

    def begin_by_words(self) -> None:
        """Expected speech begins if it is likely to, and there are words in it."""
        if self.expected is not None and self.endpoints.is_begin_likely and self.expected.timeline.text():
            self._announce(self.expected)

    def finalize(self) -> bool:
        """The client ends the utterance. False when there was nothing to end."""
        now = self.ring.end
        if self.running is None:
            start = max(self._free_from, self.ring.start, now - _UNHEARD)
            if not self._options.client_endpoint or now - start < _MIN_COMMIT:
                return False
            self._begin(start)
        self.endpoints.end_now(now)
        self.end(now)
        return True

    def clear(self) -> None:
        """Running speech is forgotten: it gets no final."""
        self.endpoints.end_now(self.ring.end)
        self._free_from = self.ring.end
        running, self.running = self.running, None
        if running is not None:
            self._lanes.forget(running.index)
        self._expect_nothing()
        self._forget()

    def stop(self) -> None:
        """No more audio comes: running speech ends with it."""
        self.end(self.ring.end)
        self._expect_nothing()

    def reconfigure(self, options: SessionOptions) -> None:
        """Other endpoints from now on. Raises ValueError for options that make no sense."""
        self.endpoints.reconfigure(options, self._max_segment)
        self._options = options

    def end(self, end: int, *, cut: bool = False) -> None:
        """Running speech ends at sample `end`; `cut` when it goes on because it was too long."""
        utterance, self.running = self.running, None
        if utterance is None:
            return
        utterance.end = end = min(max(end, utterance.start), self.ring.end)
        utterance.audio = self.ring.clip(utterance.base, end)
        utterance.options = self._options.recognize
        self._free_from = end
        self.closed.append(utterance)
        self._tell(SpeechEnded(utterance.index, end / SAMPLE_RATE))
        speculation = utterance.speculation
        if speculation is not None and (cut or speculation.pause > end):
            # It ends elsewhere than the decode assumed.
            self._lanes.drop_speculation(utterance)
        elif speculation is not None:
            utterance.answer = speculation.answer
            self._lanes.want_words(utterance)
        self._lanes.cancel(Lane.CTC, utterance.index)
        self._ended()

    @property
    def listened_to(self) -> Utterance | None:
        """Running speech, or what is expected to become it."""
        return self.running or self.expected

    @property
    def backlog(self) -> float:
        """Seconds of ended speech that waits for its final."""
        return sum(u.end - u.start for u in self.closed if u.end is not None) / SAMPLE_RATE

    @property
    def nbytes(self) -> int:
        """Memory of the audio held."""
        return self.ring.nbytes + sum(u.audio.nbytes for u in self.closed if u.audio is not None)

    def _begin(self, at: int) -> None:
        """The detector is sure of speech from sample `at` on, or the client says so."""
        start = self._start(at)
        utterance = self.listened_to
        if utterance is None:
            utterance = Utterance.begin(self.next_index, start, self._options.partials)
        else:
            utterance.begin_at(start)
        utterance.is_sure = True
        if self.running is None:
            self._announce(utterance)

    def _start(self, at: int) -> int:
        if self._options.client_endpoint:
            # The client's audio since its last command belongs to the utterance, within reason.
            at -= CLIENT_LEAD
        return max(at, self._free_from, self.ring.start)

    def _announce(self, utterance: Utterance) -> None:
        self.running, self.expected = utterance, None
        self.next_index += 1
        utterance.told_at = self.ring.end
        self._tell(SpeechBegan(utterance.index, utterance.start / SAMPLE_RATE))

    def _doubt(self) -> None:
        """Speech that began by its words is taken back, with an empty final, if the detector hears none."""
        running = self.running
        if running is None or running.is_sure or self.ring.end - running.told_at < _DOUBT:
            return
        start = running.start / SAMPLE_RATE
        running.answer = Segment("", start, start)
        self._was_wrong = True
        self.end(running.start)

    def _expect(self) -> None:
        """Listens to speech that is about to begin, so that its first words are there when it does."""
        begin = self.endpoints.expected_begin if self._may_expect else None
        self._was_wrong = self._was_wrong and begin is not None
        if self.running is not None:
            return
        expected = self.expected
        if expected is not None and (begin is None or begin - expected.base > _DOUBT):
            self._expect_nothing()
            expected = None
        if expected is not None and begin is not None:
            expected.begin_at(self._start(begin))
        elif begin is not None and not self._was_wrong:
            self.expected = Utterance.begin(self.next_index, self._start(begin), self._options.partials)

    def _expect_nothing(self) -> None:
        if self.expected is not None:
            self._lanes.forget(self.expected.index)
            self.expected = None

    @property
    def _may_expect(self) -> bool:
        """Whether somebody wants to see words at once, and words that are taken back are nobody's turn."""
        partials = self._options.partials
        wanted = partials.enabled and not partials.at_checkpoints and not self._options.client_endpoint
        return wanted and self._ctc

    def _watch_pause(self) -> None:
        running = self.running
        speculation = running.speculation if running is not None else None
        if running is not None and speculation is not None and self.endpoints.pause_at != speculation.pause:
            self._lanes.drop_speculation(running)
        if running is not None and self.endpoints.is_end_near:
            self._lanes.want_words(running)

    def _forget(self) -> None:
        if self.running is not None:
            self.ring.drop_before(self.running.base)
            return
        lead = _UNHEARD if self._options.client_endpoint else 0
        kept = max(self._free_from, self.ring.end - self.endpoints.look_back - lead)
        self.ring.drop_before(kept if self.expected is None else min(kept, self.expected.base))
