"""What the documentation says without running: generated pages, links, and names of flags and metrics."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from decoder_service.config import DecoderConfig
from encoder_service.config import EncoderConfig
from gateway.config import GatewayConfig
from scripts.generate_docs import generate
from tandem.cli import build_parser
from tests.docs.blocks import ROOT, pages
from tests.docs.commands import TIERS

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
_OTHERS = frozenset(("--set", "--build", "--from-file", "--from-literal", "--recv-timeout"))
"""Flags of programs that are not ours."""
FUNASR_FLAGS = frozenset(
    _FLAG.findall("""
    --port --host --model --hub --device --dtype --max-model-len --gpu-memory-utilization --vad-model
    --spk-model --use-context --no-context --decode-interval --endpoint-mode --partial-window-sec --enable-spk
    --hotword-file --postprocess-hotword-file --language --tensor-parallel-size --ws-ping-interval
    --ws-ping-timeout --ws-close-timeout --ws-max-size --log-session-stats-interval --model-path --cors-origin
    --server --mic --file --hotwords --spk --no-spk --model-dir --input --max-new-tokens --no-itn --batch-size
    --output
    """)
)
"""FunASR 1.4.3: serve_vllm.py, serve_realtime_ws.py, funasr-server, client_python.py, demo_vllm.py."""


def prose(path: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def own_flags() -> set[str]:
    """Every flag of the three tiers and of all commands."""
    parsers: list[Callable[[Sequence[str]], Any]] = [*TIERS.values()]
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    parsers += [partial(_command, name) for name in commands.choices or ()]
    return {flag for parse in parsers for flag in _FLAG.findall(_help(parse))}


def _command(name: str, arguments: Sequence[str]) -> Any:
    return build_parser().parse_args([name, *arguments])


def _help(parse: Callable[[Sequence[str]], Any]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        parse(["--help"])
    return output.getvalue()


def flags_of_benchmarks() -> Iterator[str]:
    for file in [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "training").glob("*.py")]:
        yield from re.findall(r'"(--[a-z-]+)"', file.read_text(encoding="utf-8"))


def test_generated_pages_are_current() -> None:
    for path, text in generate().items():
        assert path.is_file() and path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()])
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_index_names_every_page() -> None:
    folder = ROOT / "docs"
    index = folder / "README.md"
    named = {(folder / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    missing = {page for page in folder.rglob("*.md") if page != index} - named
    assert not missing


def test_flags_in_the_text_exist() -> None:
    known = own_flags() | set(flags_of_benchmarks()) | _OTHERS
    for page in pages():
        foreign = FUNASR_FLAGS if page.name in ("migration.md", "streaming.md") else frozenset()
        unknown = set(_FLAG.findall(prose(page))) - known - foreign
        assert not unknown, f"{page.name}: {sorted(unknown)}"


def test_defaults_in_the_tuning_guide_are_true() -> None:
    """Where one is a plain number or word: 0 or nothing follows the device, and the page says how."""
    text = prose(ROOT / "docs" / "tuning.md")
    tiers: dict[str, Any] = {
        "Decoder": DecoderConfig("M"),
        "Encoder": EncoderConfig(),
        "Gateway": GatewayConfig(),
    }
    for tier, config in tiers.items():
        (section,) = re.findall(rf"^## {tier}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        for flags, shown in re.findall(r"^\| (`--[^|]*) \| ([^|]*) \|", section, re.M):
            for flag, value in zip(_FLAG.findall(flags), shown.split(", "), strict=False):
                default = getattr(config, flag[2:].replace("-", "_"))
                if default and not value.endswith(("iB", " h")):
                    expected = f"{default:g}" if type(default) in (int, float) else str(default).lower()
                    assert value == expected, f"{tier} {flag}: {default}"


def test_the_migration_guide_leaves_no_flag_out() -> None:
    named = set(_FLAG.findall(prose(ROOT / "docs" / "migration.md")))
    assert not FUNASR_FLAGS - named


def test_metrics_in_the_text_exist() -> None:
    known = set(re.findall(r"`(tandem_\w+)`", prose(ROOT / "docs" / "metrics.md")))
    for page in pages():
        found = re.findall(r"\b(tandem_(?:gateway|encoder|decoder|http|requests?|open)\w*)", prose(page))
        unknown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in found} - known
        assert not unknown, f"{page.name}: {sorted(unknown)}"


def test_environment_variables_in_the_text_exist() -> None:
    flags = own_flags()
    source = "".join(
        file.read_text(encoding="utf-8")
        for file in (ROOT / "tandem").rglob("*.py")
        if "_pb2" not in file.name
    )
    for page in pages():
        for name in set(re.findall(r"\bTANDEM_[A-Z_]+\b", page.read_text(encoding="utf-8"))):
            tier = re.fullmatch(r"TANDEM_(?:GATEWAY|ENCODER|DECODER)_(\w+)", name)
            flag = f"--{tier[1].lower().replace('_', '-')}" if tier else ""
            assert flag in flags or f'"{name}"' in source, f"{page.name}: {name}"
