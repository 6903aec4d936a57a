"""The decodes of one session that are out: at most one in each lane, with the rest that each lane takes."""

from __future__ import annotations

from collections.abc import Callable

from gateway.session.events import Update
from gateway.session.jobs import DecodeJob, Effects, Lane
from gateway.session.pace import Pace
from gateway.session.utterance import Utterance
from tandem.errors import TandemError

_REFUSED = 0.5


class Lanes:
    """`clock` is monotonic seconds; after a decode a lane rests `load_factor` times as long as it took."""

    def __init__(self, clock: Callable[[], float], load_factor: float) -> None:
        self._clock = clock
        self._jobs: dict[Lane, DecodeJob] = {}
        self._drafted = 0
        """Id of the last decode whose text is there."""
        self._pace = {lane: Pace(load_factor) for lane in Lane}
        self._starts: list[DecodeJob] = []
        self._cancels: list[int] = []
        self._released: list[int] = []
        self.next_id = 1

    def busy(self, lane: Lane) -> DecodeJob | None:
        """The decode that is out."""
        return self._jobs.get(lane)

    @property
    def owes_text(self) -> bool:
        """Whether the language model has been asked for a text that is not there."""
        job = self.busy(Lane.LLM)
        return job is not None and job.id != self._drafted

    def free(self, lane: Lane) -> bool:
        """Whether nothing is out and the lane has rested."""
        return lane not in self._jobs and self._pace[lane].ready(self._clock())

    def start(self, job: DecodeJob) -> DecodeJob:
        """Send `job` out; its lane has nothing out."""
        self.next_id = job.id + 1
        self._jobs[job.kind.lane] = job
        self._pace[job.kind.lane].start(self._clock())
        self._starts.append(job)
        return job

    def cancel(self, lane: Lane, index: int) -> None:
        """Forget what is out for utterance `index`."""
        job = self._jobs.get(lane)
        if job is not None and job.index == index:
            del self._jobs[lane]
            self._cancels.append(job.id)

    def forget(self, index: int) -> None:
        """Nothing more is decoded of utterance `index`."""
        for lane in Lane:
            self.cancel(lane, index)
        self._released.append(index)

    def want_words(self, utterance: Utterance) -> None:
        """The final decode begun in a pause is what the utterance ends with."""
        job, speculation = self.busy(Lane.LLM), utterance.speculation
        if speculation is not None and job is not None and job.id == speculation.job:
            job.words_wanted.set()

    def drop_speculation(self, utterance: Utterance) -> None:
        """The pause that the final decode was begun in is over, or what it was begun with no longer holds."""
        job, speculation = self.busy(Lane.LLM), utterance.speculation
        if speculation is not None and job is not None and job.id == speculation.job:
            self.cancel(Lane.LLM, utterance.index)
        utterance.speculation = None

    def drafted(self, job: DecodeJob) -> bool:
        """The text of a final is there, but for its word times; False as in done()."""
        if self._jobs.get(job.kind.lane) is not job:
            return False
        self._drafted = job.id
        self._pace[job.kind.lane].done(self._clock())
        return True

    def done(self, job: DecodeJob) -> bool:
        """The answer is there; False when nobody wants it any more."""
        if not self._remove(job):
            return False
        if job.id != self._drafted:
            self._pace[job.kind.lane].done(self._clock())
        return True

    def failed(self, job: DecodeJob, error: TandemError) -> bool:
        """There will be no answer; the lane rests for as long as `error` advises. False as in done()."""
        if not self._remove(job):
            return False
        self._pace[job.kind.lane].refused(self._clock(), error.retry_after or _REFUSED)
        return True

    def take(self, updates: list[Update]) -> Effects:
        """What has been started and cancelled since the last call, beside `updates`."""
        effects = Effects(updates, self._starts, self._cancels, self._released)
        self._starts, self._cancels, self._released = [], [], []
        return effects

    def _remove(self, job: DecodeJob) -> bool:
        if self._jobs.get(job.kind.lane) is not job:
            return False
        del self._jobs[job.kind.lane]
        return True
