"""`tandem transcribe`: files in, text out, with a running server or one started for the purpose."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tandem.cli.formats import FORMATS, render
from tandem.cli.models import add_model_flags, decoder_flags, encoder_flags, resolve
from tandem.client import Client
from tandem.errors import TandemError
from tandem.launcher import private_stack
from tandem.results import RecognizeOptions, Transcript


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("transcribe", help="transcribe audio files")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--server", help="gRPC address of a running gateway; unset starts one for this command"
    )
    parser.add_argument("--language", help="ISO code or name; unset lets the model decide")
    parser.add_argument("--hotwords", nargs="+", default=(), metavar="WORD", help="words likely to occur")
    parser.add_argument("--no-itn", dest="itn", action="store_false", help="no inverse text normalisation")
    parser.add_argument("--no-vad", dest="vad", action="store_false", help="decode each file as one segment")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--details", action="store_true", help="add token ids to the json segments")
    parser.add_argument(
        "--timing", action="store_true", help="print the time of each stage to standard error"
    )
    parser.add_argument("--concurrency", type=int, default=4, help="files sent at the same time")
    add_model_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print each file's transcript in order; a file that fails is reported and the others go on."""
    missing = [str(file) for file in options.files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"no such file: {', '.join(missing)}")
    wanted = RecognizeOptions(
        language=options.language,
        hotwords=tuple(options.hotwords),
        itn=options.itn,
        vad=options.vad,
        details=options.details,
    )
    failed = 0
    with server(options) as target, Client(target) as client, _progress() as progress:
        bar = progress.add_task("transcribing", total=len(options.files))
        with ThreadPoolExecutor(options.concurrency) as pool:
            jobs = [pool.submit(client.recognize, file, wanted) for file in options.files]
            for file, job in zip(options.files, jobs, strict=True):
                try:
                    _show(file, job.result(), options)
                except TandemError as error:
                    failed += 1
                    print(f"{file}: {error}", file=sys.stderr)
                progress.advance(bar)
    return 1 if failed else 0


def _show(file: Path, transcript: Transcript, options: argparse.Namespace) -> None:
    if options.format == "text" and len(options.files) > 1:
        print(f"== {file}")
    print(render(file, transcript, options.format, details=options.details), flush=True)
    if options.timing:
        print(timing_line(transcript), file=sys.stderr)


def timing_line(transcript: Transcript) -> str:
    """One line: duration, total time, and the stages."""
    t = transcript.timing
    stages = f"audio {t.audio_decode:.2f}, vad {t.vad:.2f}, encode {t.encode:.2f}, decode {t.decode:.2f}"
    return f"{transcript.duration:.1f} s of audio in {t.total:.2f} s ({stages} s)"


@contextlib.contextmanager
def server(options: argparse.Namespace) -> Iterator[str]:
    """The address to use: --server, or that of three tiers started for this command."""
    if options.server:
        yield options.server
        return
    console = Console(stderr=True)
    with console.status("starting the three services"), contextlib.ExitStack() as exit_stack:
        stack = exit_stack.enter_context(
            private_stack(
                resolve(options.model),
                hub=options.hub,
                engine=options.engine,
                encoder_args=encoder_flags(options),
                decoder_args=decoder_flags(options),
            )
        )
        held = exit_stack.pop_all()
    with held:
        yield stack.address


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
