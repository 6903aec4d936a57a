"""`tandem stream`: live recognition in the terminal, from a microphone or a file."""

from __future__ import annotations

import argparse
import contextlib
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tandem.cli.access import access_of, add_access_flags, add_server_flag
from tandem.cli.formats import clock
from tandem.cli.models import add_model_flags
from tandem.cli.transcribe import checked, server
from tandem.errors import CapabilityMissing
from tandem.live_events import Ended, EndReason, Final, LiveEvent, Partial, Refined
from tandem.live_inputs import recording_pcm
from tandem.results import RecognizeOptions, Segment
from tandem.streaming_client import StreamOptions, stream

RATE, FRAME = 16_000, 1_600
_SPEAKER_STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("stream", help="live captions of a microphone or a file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--mic", action="store_true", help="the default microphone, until Ctrl-C")
    source.add_argument("--file", type=Path, help="a recording")
    parser.add_argument("--realtime", action="store_true", help="send the file at the pace of a microphone")
    add_server_flag(parser)
    parser.add_argument("--language", help="ISO code or name; unset lets the model decide")
    parser.add_argument("--hotwords", nargs="+", default=(), metavar="WORD", help="words likely to occur")
    parser.add_argument("--speakers", action="store_true", help="tell speakers apart")
    add_access_flags(parser)
    add_model_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print sentences as they become final, with the running one below them."""
    if options.file is not None and not options.file.is_file():
        raise FileNotFoundError(f"no such file: {options.file}")
    recognize = RecognizeOptions(
        language=options.language, hotwords=tuple(options.hotwords), speakers=options.speakers
    )
    wanted = StreamOptions(checked(recognize))
    if options.mic:
        _sounddevice()
    with contextlib.ExitStack() as resources:
        target = resources.enter_context(server(options))
        if options.mic:
            chunks = microphone(resources)
        elif options.realtime:
            chunks = playing(options.file, resources)
        else:
            chunks = recording(options.file)
        captions = Captions(Console(highlight=False))
        resources.callback(captions.clear)
        access = access_of(options) if options.server else None
        for event in stream(chunks, target, wanted, access=access):
            captions.show(event)
    return 0


def recording(path: Path) -> Iterator[bytes]:
    """Frames of 100 ms of PCM16 at 16 kHz."""
    pcm = recording_pcm(path.read_bytes(), str(path))
    for first in range(0, len(pcm), FRAME):
        yield pcm[first : first + FRAME].tobytes()


def playing(path: Path, resources: contextlib.ExitStack) -> Iterator[bytes]:
    """The same, as fast as a microphone gives them, until the end or Ctrl-C. For the main thread."""
    stopped = threading.Event()
    _at_interrupt(resources, stopped.set)
    return _paced(recording(path), stopped)


def _paced(frames: Iterator[bytes], stopped: threading.Event) -> Iterator[bytes]:
    begin = time.monotonic()
    for number, frame in enumerate(frames, 1):
        if stopped.wait(max(0.0, begin + number * FRAME / RATE - time.monotonic())):
            return
        yield frame


def microphone(resources: contextlib.ExitStack) -> Iterator[bytes]:
    """Frames of the default microphone until Ctrl-C, which ends the audio and lets the rest be decoded."""
    sounddevice = _sounddevice()
    frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def heard(data: Any, count: int, when: object, status: object) -> None:
        frames.put(bytes(data))

    try:
        source = sounddevice.RawInputStream(RATE, FRAME, channels=1, dtype="int16", callback=heard)
    except sounddevice.PortAudioError as error:
        raise CapabilityMissing(f"there is no usable microphone: {error}") from error
    _at_interrupt(resources, lambda: frames.put(None))
    resources.enter_context(source)
    return _until_none(frames.get)


def _at_interrupt(resources: contextlib.ExitStack, end: Callable[[], None]) -> None:
    """The first Ctrl-C ends the audio, so that the rest is decoded; a second one interrupts that too."""
    before = signal.getsignal(signal.SIGINT)

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        end()

    signal.signal(signal.SIGINT, handle)
    resources.callback(signal.signal, signal.SIGINT, before)


def _sounddevice() -> Any:
    """The optional package; CapabilityMissing says how to get it."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        needed = "--mic needs `pip install tandem-asr[mic]` and PortAudio"
        raise CapabilityMissing(f"{needed}: {error}") from error
    return sounddevice


def _until_none(get: Callable[[], bytes | None]) -> Iterator[bytes]:
    while (frame := get()) is not None:
        yield frame


class Captions:
    """Final sentences line by line; on a terminal the running one is rewritten in place below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._shown = 0
        self._finals: dict[int, tuple[Segment, ...]] = {}
        self._refined = False

    def show(self, event: LiveEvent) -> None:
        """One event of the session."""
        if isinstance(event, Partial):
            self._rewrite(Text.assemble(event.fixed, (event.unfixed, "dim")))
        elif isinstance(event, Final):
            self.clear()
            self._finals[event.index] = event.sentences
            self._print(event.sentences)
        elif isinstance(event, Refined):
            before = [segment.speaker for segment in self._finals.get(event.index, ())]
            self._refined |= before != [segment.speaker for segment in event.sentences]
            self._finals[event.index] = event.sentences
        elif isinstance(event, Ended):
            self._end(event)

    def clear(self) -> None:
        """Takes the running sentence away."""
        self._rewrite(Text())

    def _rewrite(self, text: Text) -> None:
        """The last line of the terminal; what does not fit loses its beginning."""
        if not self._live:
            return
        text.plain = text.plain.replace("\n", " ")
        width = self._console.width - 1
        overflow = text.cell_len - width
        if overflow > 0:
            text = Text("…").append_text(text[min(len(text) - 1, overflow + 1) :])
        self._console.file.write("\r\x1b[K")
        self._console.print(text, end="", soft_wrap=True)
        self._console.file.flush()

    def _print(self, sentences: Iterable[Segment]) -> None:
        for segment in sentences:
            if segment.text:
                self._console.print(line(segment), soft_wrap=True)

    def _end(self, event: Ended) -> None:
        if self._refined:
            self._console.print("speakers of the whole session:", style="bold")
            for _, sentences in sorted(self._finals.items()):
                self._print(sentences)
        if event.reason is not EndReason.CLIENT:
            print(f"the server ended the session: {event.reason.value}", file=sys.stderr)


def line(segment: Segment) -> Text:
    """Time, speaker in a colour of their own, text."""
    text = Text.assemble((f"[{clock(segment.start)}] ", "dim"))
    style = ""
    if segment.speaker:
        number = int(segment.speaker.removeprefix("SPK"))
        style = _SPEAKER_STYLES[number % len(_SPEAKER_STYLES)]
        text.append(f"{segment.speaker} ", f"bold {style}")
    return text.append(segment.text, style)
