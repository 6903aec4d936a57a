"""Every command of README.md and docs/ is run against one running stack, or at least checked."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import COMMANDS, PROGRAMS, ROOT, SHOWN, Block, all_blocks
from tests.docs.commands import check
from tests.docs.conftest import Ports
from tests.docs.shell import Shell

BLOCKS = all_blocks()
_REASON = re.compile(r"\S+( \S+)+")


def named(chosen: list[Block]) -> list[object]:
    return [pytest.param(block, id=block.name) for block in chosen]


def values_of(page: str) -> dict[str, str]:
    """The page's files of chart values by name."""
    return {b.reason: b.text for b in BLOCKS if b.page == page and b.mark == "helm-values"}


def script_of(block: Block, text: str, folder: Path) -> str:
    """What a shell runs for a block: its text, or the program in it."""
    if block.language in ("bash", "sh"):
        return text
    suffix, program = {"python": (".py", "python"), "javascript": (".mjs", "node")}[block.language]
    file = folder / f"{block.name.replace('/', '-').replace(':', '-')}{suffix}"
    file.write_text(text, encoding="utf-8")
    return f"{program} {shlex.quote(str(file))}\n"


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.runs]))
def test_it_runs(
    block: Block, services: str, shells: dict[str, Shell], ports: Ports, workplace: Path
) -> None:
    if block.language == "javascript" and shutil.which("node") is None:
        pytest.skip("needs node")
    shells[block.page].run(script_of(block, ports.substitute(block.text), workplace))


@pytest.mark.parametrize(
    "block", named([b for b in BLOCKS if b.language in COMMANDS and b.mark in ("no-run", "serves")])
)
def test_what_it_names_exists(block: Block) -> None:
    assert block.mark == "serves" or _REASON.fullmatch(block.reason), "say why it cannot run"
    text = block.text
    if block.language == "console":
        text = "".join(re.findall(r"^\$ (.*\n)", text, re.M))
    check(text, values_of(block.page))


def test_every_block_is_run_or_checked() -> None:
    """Nothing slips through: unknown languages and marks, console blocks that pretend to run."""
    for block in BLOCKS:
        assert block.language in COMMANDS | PROGRAMS | SHOWN, f"{block.name}: {block.language}"
        if block.language in COMMANDS:
            assert block.mark in ("", "no-run", "serves"), f"{block.name}: {block.mark}"
            assert block.mark or block.language != "console", f"{block.name}: mark it no-run"
        elif block.language in PROGRAMS:
            assert not block.mark, f"{block.name}: programs are always run"
        else:
            assert block.mark in ("", "helm-values"), f"{block.name}: {block.mark}"


@pytest.mark.parametrize("block", named([block for block in BLOCKS if block.mark == "helm-values"]))
def test_chart_values_render(block: Block) -> None:
    assert yaml.safe_load(block.text)
    check(f"helm template speech deploy/helm/tandem -f {block.reason}", {block.reason: block.text})


def test_the_readme_shows_what_the_demo_prints(services: str, shells: dict[str, Shell]) -> None:
    block = next(block for block in BLOCKS if block.page == "README.md" and "make demo" in block.text)
    shown = [line for line in block.text.splitlines() if line.startswith("[")]
    command = re.search(r"(tandem transcribe .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert shown and command is not None
    line = command[1].replace("$(ENGINE)", "transformers")
    printed = shells["Makefile"].run(f"{line} --server {services}\n").splitlines()
    assert printed[: len(shown)] == shown


def test_the_notes_of_the_chart_name_real_commands() -> None:
    notes = (ROOT / "deploy/helm/tandem/templates/NOTES.txt").read_text(encoding="utf-8")
    text = notes.replace('{{ include "tandem.fullname" . }}', "speech-tandem")
    text = re.sub(r"\{\{[^}]*\}\}", "1", text)
    lines = re.findall(r"^  ((?:kubectl|tandem) .*)$", text, re.M)
    assert len(lines) == 3
    check("\n".join(lines), {})
