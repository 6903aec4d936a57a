"""`tandem transcribe`: files in, text out, with a running server or one started for the purpose."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tandem.cli.access import access_of, add_access_flags, add_server_flag
from tandem.cli.formats import FORMATS
from tandem.cli.models import add_model_flags, engine_options
from tandem.cli.output import Sink, Style, open_sink, style_for
from tandem.cli.processes import add_process_flags, positive, process_options
from tandem.cli.progress import Meter
from tandem.cli.usage import UsageError
from tandem.convert import check_options
from tandem.errors import AlreadyExists, InvalidRequest, TandemError
from tandem.inputs import Recording, recordings
from tandem.local import EngineOptions, LocalServices
from tandem.many import IN_FLIGHT, ManyOptions, Outcome, transcribe_many
from tandem.results import RecognizeOptions, Transcript


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("transcribe", help="transcribe audio files")
    inputs = "audio file, wav.scp (key and path a line) or jsonl (source and key)"
    parser.add_argument("files", nargs="*", metavar="FILE", help=inputs)
    parser.add_argument("--input", nargs="+", default=[], metavar="FILE", help="more of these")
    add_server_flag(parser)
    parser.add_argument(
        "--batch-size",
        "--concurrency",
        type=positive,
        default=IN_FLIGHT,
        help="files in flight at the same time",
    )
    parser.add_argument(
        "--gateways",
        type=positive,
        help="gateway processes that share the files, without --server; unset follows the cores",
    )
    parser.add_argument("--timeout", type=float, help="seconds for one file; unset follows its duration")
    add_recognition_flags(parser)
    _add_output_flags(parser)
    add_access_flags(parser)
    add_model_flags(parser)
    add_process_flags(parser)
    parser.set_defaults(run=run)


def add_recognition_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recognition")
    group.add_argument("--language", help="ISO code or name; unset lets the model decide")
    group.add_argument("--hotwords", nargs="+", default=(), metavar="WORD", help="words likely to occur")
    group.add_argument("--no-itn", dest="itn", action="store_false", help="no inverse text normalisation")
    group.add_argument("--no-vad", dest="vad", action="store_false", help="decode each file as one segment")
    group.add_argument("--max-new-tokens", type=positive, help="of one segment; unset follows its duration")
    group.add_argument("--speakers", "--spk", action="store_true", help="tell speakers apart")
    group.add_argument("--num-speakers", type=positive, help="how many there are; unset finds out")
    group.add_argument(
        "--separate-channels", action="store_true", help="each channel by itself, not their mix"
    )


def _add_output_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        help="file that grows with each result, or folder for a file each: one that is there, "
        "or a name that ends with a slash",
    )
    group.add_argument(
        "--format", choices=FORMATS, help="unset follows the name of the output, else it is text"
    )
    group.add_argument(
        "--resume", action="store_true", help="skip what the output (jsonl or folder) has already"
    )
    group.add_argument("--details", action="store_true", help="add token ids to the json segments")
    group.add_argument("--timing", action="store_true", help="print each file's stages to standard error")


def run(options: argparse.Namespace) -> int:
    """Write each transcript in order; a file that fails is reported and the others go on."""
    given = [*options.files, *options.input]
    if not given:
        raise UsageError("no input: give files, a wav.scp or a jsonl")
    wanted = recognize_options(options, details=options.details)
    items = list(recordings(given))
    style = Style(style_for(options.output, options.format), options.details)
    with open_sink(options.output, style, resume=options.resume, several=len(items) > 1) as sink:
        todo = [item for item in items if not sink.has(item)]
        if len(todo) < len(items):
            print(f"{len(items) - len(todo)} of {len(items)} are done already", file=sys.stderr)
        there = [item for item in todo if _is_there(item)]
        failed = len(todo) - len(there)
        if there:
            failed += _transcribe(there, sink, wanted, options)
    return 1 if failed else 0


def _is_there(item: Recording) -> bool:
    if isinstance(item.source, Path) and not item.source.is_file():
        print(f"{item.name}: no such file", file=sys.stderr)
        return False
    return True


def _transcribe(
    items: Sequence[Recording], sink: Sink, wanted: RecognizeOptions, options: argparse.Namespace
) -> int:
    """How many failed."""
    access = access_of(options) if options.server else None
    many = ManyOptions(
        wanted,
        options.batch_size,
        options.timeout,
        access=access,
        local_files=not options.server,
    )
    failed, local = 0, replace(process_options(options), gateways=options.gateways)
    with (
        _ended_by_sigterm(),
        _running(options, local) as (targets, check),
        contextlib.closing(transcribe_many(targets, items, many, check)) as outcomes,
        Meter(len(items)) as meter,
    ):
        for outcome in outcomes:
            if not _take(outcome, sink, options.timing):
                failed += 1
            meter.advance(outcome.transcript.duration if outcome.transcript else 0.0)
    return failed


def _take(outcome: Outcome, sink: Sink, timing: bool) -> bool:
    try:
        transcript = outcome.result()
    except (TandemError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return False
    try:
        sink.write(outcome.recording, transcript)
    except AlreadyExists as error:
        print(error, file=sys.stderr)
        return False
    if timing:
        print(timing_line(transcript), file=sys.stderr)
    return True


def recognize_options(options: argparse.Namespace, *, details: bool = False) -> RecognizeOptions:
    """What the flags of add_recognition_flags ask for. Raises UsageError for values that can never work."""
    wanted = RecognizeOptions(
        language=options.language,
        hotwords=tuple(options.hotwords),
        itn=options.itn,
        vad=options.vad,
        max_new_tokens=options.max_new_tokens,
        speakers=options.speakers or options.num_speakers is not None,
        num_speakers=options.num_speakers,
        separate_channels=options.separate_channels,
        details=details,
    )
    return checked(wanted)


def checked(wanted: RecognizeOptions) -> RecognizeOptions:
    """The same; UsageError for values that can never work, before services start or a server is asked."""
    try:
        check_options(wanted)
    except InvalidRequest as error:
        raise UsageError(str(error)) from error
    return wanted


def timing_line(transcript: Transcript) -> str:
    """One line: duration, total time, and the stages."""
    t = transcript.timing
    stages = f"audio {t.audio_decode:.2f}, vad {t.vad:.2f}, encode {t.encode:.2f}, decode {t.decode:.2f}"
    return f"{transcript.duration:.1f} s of audio in {t.total:.2f} s ({stages} s)"


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the services and closes the output as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def server(options: argparse.Namespace) -> Iterator[str]:
    """The address of the server that the flags name, or of one started for this command."""
    with _running(options, replace(engine_options(options), gateways=1)) as (targets, _):
        yield targets[0]


@contextlib.contextmanager
def _running(
    options: argparse.Namespace, local: EngineOptions
) -> Iterator[tuple[tuple[str, ...], Callable[[], None]]]:
    """Its gateways' addresses; a check that raises LaunchError with the log of our service that has died."""
    if options.server:
        yield (options.server,), lambda: None
        return
    with Console(stderr=True).status("starting the services"):
        services = LocalServices(local)
    with contextlib.closing(services):
        yield services.addresses, services.check
