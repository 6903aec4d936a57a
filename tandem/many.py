"""Many recordings through one or several servers: a bounded number in flight, answers in order of input."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue

from tandem.access import Access
from tandem.client import Client, ServerFile
from tandem.errors import LimitExceeded, TandemError, Unavailable
from tandem.inputs import Recording
from tandem.patience import Patience, recommended_timeout
from tandem.results import RecognizeOptions, Transcript

IN_FLIGHT = 128
"""Recordings of a minute that keep a GPU busy; a slower server lets them wait."""
_CHECK_SECONDS = 1.0
_AHEAD = 4
"""A long recording at the head does not stop those behind it: so many times in_flight may be done or wait."""

Failure = TandemError | OSError | ValueError | TypeError
"""What one recording may fail with: the server's answer, its file, or its samples."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One recording's transcript, or why there is none."""

    recording: Recording
    transcript: Transcript | None = None
    error: Failure | None = None

    def result(self) -> Transcript:
        """The transcript; raises the error with the recording's name in its message."""
        if self.transcript is not None:
            return self.transcript
        assert self.error is not None
        raise named(self.recording.name, self.error) from self.error


def named(name: str, error: Failure) -> Exception:
    """The same kind of error, its message beginning with the recording's name."""
    if isinstance(error, TandemError):
        return type(error)(
            f"{name}: {error}",
            violations=error.violations,
            retry_after=error.retry_after,
            metadata=error.metadata,
        )
    return error if isinstance(error, OSError) else type(error)(f"{name}: {error}")


@dataclass(frozen=True, slots=True)
class ManyOptions:
    """`in_flight`: recordings sent at the same time. `timeout`: seconds for each, None scales with its
    duration and with `in_flight`. `whole_if_possible`: one segment where the model's limit allows it.
    `local_files`: the server was started with --local-files and reads files itself."""

    recognize: RecognizeOptions = field(default_factory=RecognizeOptions)
    in_flight: int = IN_FLIGHT
    timeout: float | None = None
    whole_if_possible: bool = False
    access: Access | None = None
    local_files: bool = False
    patience: Patience | None = None


def transcribe_many(
    targets: str | Sequence[str],
    items: Iterable[Recording],
    options: ManyOptions,
    check: Callable[[], None] = lambda: None,
) -> Generator[Outcome, None, None]:
    """Outcomes in the order of `items`. Closing the iterator cancels what is in flight.

    Several `targets` are gateways of the same services; each has an equal share of what is in flight. `check`
    raises what ends it all where the services will not come back, for which calls would wait half a minute.
    """
    waiting: deque[Future[Outcome]] = deque()
    addresses = [targets] if isinstance(targets, str) else targets
    clients = [Client(at, patience=options.patience, access=options.access) for at in addresses]
    free: SimpleQueue[Client] = SimpleQueue()
    for number in range(options.in_flight):
        free.put(clients[number % len(clients)])
    pool = ThreadPoolExecutor(options.in_flight, thread_name_prefix="tandem-many")
    try:
        for item in items:
            waiting.append(pool.submit(_transcribe, free, item, options))
            while waiting and (waiting[0].done() or len(waiting) >= options.in_flight * _AHEAD):
                yield _result(waiting.popleft(), check)
        while waiting:
            yield _result(waiting.popleft(), check)
    finally:
        for client in clients:
            client.close()
        pool.shutdown(cancel_futures=True)


def _result(work: Future[Outcome], check: Callable[[], None]) -> Outcome:
    while not wait((work,), timeout=_CHECK_SECONDS).done:
        check()
    outcome = work.result()
    if isinstance(outcome.error, Unavailable):
        check()
    return outcome


def _transcribe(free: SimpleQueue[Client], item: Recording, options: ManyOptions) -> Outcome:
    """`free` has a client for every thread, so that none waits for it."""
    client = free.get()
    try:
        audio = _for_server(item) if options.local_files else item.load()
        timeout = options.timeout
        if timeout is None:
            timeout = recommended_timeout(audio) * options.in_flight
        return Outcome(item, _ask(client, audio, options, timeout))
    except (TandemError, OSError, ValueError, TypeError) as error:
        return Outcome(item, error=error)
    finally:
        free.put(client)


def _for_server(item: Recording) -> bytes | Path:
    """The file that a server on this machine can read itself, or the recording."""
    source = item.source
    # A pipe, say, only this process can read.
    return source if isinstance(source, Path) and source.is_file() else item.load()


def _ask(client: Client, source: bytes | Path, options: ManyOptions, timeout: float) -> Transcript:
    audio = ServerFile(source) if isinstance(source, Path) else source
    wanted = options.recognize
    if options.whole_if_possible:
        try:
            return client.recognize(audio, replace(wanted, vad=False), timeout=timeout)
        except LimitExceeded:
            wanted = replace(wanted, vad=True)
    return client.recognize(audio, wanted, timeout=timeout)
