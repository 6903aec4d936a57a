"""`tandem bulk`: a manifest of any length through a running server, from all machines of a Ray cluster."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.cli.access import access_of, add_access_flags
from tandem.cli.processes import positive
from tandem.cli.transcribe import add_recognition_flags, recognize_options
from tandem.errors import InvalidRequest
from tandem.inputs import recordings

if TYPE_CHECKING:
    from tandem.bulk.job import BulkReport


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bulk", help="transcribe a manifest on a Ray cluster; pip install '.[bulk]'")
    parser.add_argument("manifest", nargs="+", help="jsonl or parquet (source and key), wav.scp, audio files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder that all machines share")
    parser.add_argument("--server", required=True, help="gRPC address of a running gateway")
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    parser.add_argument("--actors", type=positive, default=2, help="clients on the cluster")
    parser.add_argument("--in-flight", type=positive, default=8, help="recordings in flight from each one")
    parser.add_argument("--part-size", type=positive, default=64, help="recordings in one file of results")
    parser.add_argument("--timeout", type=float, help="seconds for one file; unset follows its duration")
    parser.add_argument(
        "--ray-address", help="of the cluster; unset takes RAY_ADDRESS, or else starts Ray on this machine"
    )
    add_recognition_flags(parser)
    add_access_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when every recording is done; what failed is reported and tried again by the next run."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray

        from tandem.bulk.job import BulkJob, run_bulk
        from tandem.bulk.parts import Parts
    except ImportError as error:
        raise InvalidRequest(f"{error.name} is not installed: pip install 'tandem-asr[bulk]'") from error
    job = BulkJob(
        options.server,
        Parts(options.output.absolute(), options.format),
        recognize_options(options),
        access_of(options),
        options.actors,
        options.in_flight,
        options.part_size,
        options.timeout,
    )
    if not ray.is_initialized():
        ray.init(address=options.ray_address, logging_level=logging.ERROR, log_to_driver=False)
    report = run_bulk(recordings(options.manifest), job, _progress)
    print(
        f"{report.done} done ({report.audio / 3600:.2f} h), {report.failed} failed, "
        f"{report.skipped} were done before",
        file=sys.stderr,
    )
    for record in job.parts.failures()[:_SHOWN]:
        print(f"{record['file']}: {record['reason']}: {record['error']}", file=sys.stderr)
    if report.failed > _SHOWN:
        print(f"... all of them in {job.parts.folder}/failed-*.jsonl", file=sys.stderr)
    return 1 if report.failed else 0


_SHOWN = 20


def _progress(report: BulkReport, total: int) -> None:
    print(f"{report.done + report.failed} of {total}", file=sys.stderr)
