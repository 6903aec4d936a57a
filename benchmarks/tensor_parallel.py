"""One decoder over two GPUs against one on the second GPU, with the encoder on the first: speed and texts.

    python -m benchmarks.tensor_parallel [--model DIR] [--json FILE] [--no-texts] [--smoke]

Speed is that of the checkpoint's own precision. Texts are compared in float32: random weights give nearly
flat logits, whose greedy token bfloat16's rounding decides. With --smoke both decoders are the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import growth, side_by_side
from benchmarks.passes import Load, Results, Row, one_pass
from benchmarks.stack import Services, behind, front, own, running

Texts = Mapping[str, Sequence[str]]
_SPREAD, _SECOND = "2 GPUs", "GPU 1"
_LATENCY_SHARE, _TEXTS_SHARE = 1 / 12, 1 / 8


@dataclass(frozen=True, slots=True)
class Decoder:
    """A way to place the decoder, and its flags."""

    name: str
    flags: tuple[str, ...]


def decoders(smoke: bool) -> tuple[Decoder, Decoder]:
    """Spread over both GPUs, and alone on the second."""
    if smoke:
        return Decoder(_SPREAD, ()), Decoder(_SECOND, ())
    return (
        Decoder(_SPREAD, ("--tensor-parallel-size", "2")),
        Decoder(_SECOND, ("--device", "cuda:1")),
    )


def placed(setup: side_by_side.Setup, decoder: Decoder, label: str, more: Sequence[str] = ()) -> Services:
    """The services with this decoder, and the encoder on the first GPU."""
    extra = dict(setup.services.extra)
    extra["decoder"] = [*extra.get("decoder", ()), *decoder.flags, *more]
    root = setup.root / f"services-{label}-{decoder.name.replace(' ', '-')}"
    return replace(setup.services, extra=extra, root=root)


def speed(setup: side_by_side.Setup, decoder: Decoder, results: Results) -> None:
    """A row of throughput, and rows of latency with one and with sixteen recordings at a time."""
    heavy = Load(in_flight=128, processes=4)
    loads = {
        "warm-up": (heavy, 1 / 4),
        "throughput": (heavy, 1.0),
        "1 at a time": (Load(in_flight=1, processes=1), _LATENCY_SHARE),
        "16 at a time": (Load(in_flight=16, processes=2), 4 * _LATENCY_SHARE),
    }
    services = placed(setup, decoder, "speed")
    with (
        running(services) as stack,
        behind(services, stack) as there,
        front(services, there) as at,
    ):
        for number, (title, (load, share)) in enumerate(loads.items()):
            folder = recordings(setup, f"tp-{number}", share, 3000 + number)
            name = f"decoder on {decoder.name}: {title}"
            results.attempt(name, partial(one_pass, name, load, at.servers, folder, at.watched))


def texts(setup: side_by_side.Setup, decoder: Decoder, results: Results) -> Texts:
    """What each segment of a few files says, in float32."""
    file = setup.root / f"texts-{decoder.name.replace(' ', '-')}.json"
    file.unlink(missing_ok=True)
    exact = ("--dtype", "fp32", "--enforce-eager", "true")
    with running(placed(setup, decoder, "texts", exact)) as stack:
        at = own(stack)
        folder = recordings(setup, "tp-texts", _TEXTS_SHARE, 3100)
        load = Load(in_flight=8, processes=1, texts=str(file))
        name = f"decoder on {decoder.name}: texts, float32, eager"
        results.attempt(name, partial(one_pass, name, load, at.servers, folder, at.watched))
    found: Texts = json.loads(file.read_text(encoding="utf-8"))
    return found


def recordings(setup: side_by_side.Setup, name: str, share: float, seed: int) -> Path:
    """The same for both decoders."""
    return setup.written(name, growth.smaller(setup.work, share, seed))


def compare(one: Texts, other: Texts) -> dict[str, int]:
    """How many segments there are, and how many of them say the same."""
    pairs = [pair for name, found in one.items() for pair in zip(found, other[name], strict=True)]
    return {"segments": len(pairs), "equal": sum(left == right for left, right in pairs)}


def compared(setup: side_by_side.Setup, pair: tuple[Decoder, Decoder], results: Results) -> Row:
    """A row that only says how many texts are equal."""
    found = [texts(setup, decoder, results) for decoder in pair]
    counted = compare(*found)
    print(f"texts: {counted['equal']} of {counted['segments']} segments equal", flush=True)
    return Row("texts", 0.0, 1.0, detail=dict(counted))


def main() -> int:
    parser = side_by_side.parser(__doc__ or "")
    parser.add_argument("--no-texts", action="store_true", help="no starts in float32")
    options = side_by_side.checked(parser.parse_args())
    results = Results(options.json)
    with side_by_side.prepared(options) as setup:
        if not options.smoke:
            setup = replace(setup, services=replace(setup.services, device=None))
        pair = decoders(options.smoke)
        for decoder in pair:
            results.attempt(decoder.name, partial(speed, setup, decoder, results))
        if not options.no_texts:
            results.attempt("texts", partial(compared, setup, pair, results))
    print(results.table())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
