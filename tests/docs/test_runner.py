"""The runner of the documentation finds what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import blocks_of
from tests.docs.commands import check, commands
from tests.docs.shell import Shell
from tests.support.processes import is_gone


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path, os.environ, tmp_path / "log")
    yield opened
    opened.close()


def test_a_page_has_one_shell(shell: Shell, tmp_path: Path) -> None:
    shell.run("export WORD=kept; mkdir inner && cd inner")
    assert shell.run('echo "$WORD"; pwd') == f"kept\n{tmp_path / 'inner'}\n"


@pytest.mark.parametrize("before", ["", "sleep 60 &\n"])
def test_a_command_that_fails_fails_the_block(shell: Shell, before: str) -> None:
    with pytest.raises(AssertionError, match="exit code 3:\nsaid"):
        shell.run(f"{before}echo said\n(exit 3)\necho not reached\n", timeout=20)
    with pytest.raises(AssertionError, match="earlier block"):
        shell.run("true")


def test_a_pipe_fails_with_each_of_its_commands(shell: Shell) -> None:
    with pytest.raises(AssertionError, match="exit code 1"):
        shell.run("false | cat\n")


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    shell = Shell(tmp_path, os.environ, tmp_path / "log")
    with pytest.raises(AssertionError, match="not done"):
        shell.run("sleep 60 & echo $!\nwait\n", timeout=0.5)
    shell.close(grace=0.5)
    assert is_gone(int(shell.output()))


def test_commands_are_taken_apart() -> None:
    script = "A=1 tandem key x > file  # comment\nmake \\\n  setup && pip install '.[mic]' | cat\n"
    assert list(commands(script)) == [
        ["tandem", "key", "x", ">", "file"],
        ["make", "setup"],
        ["pip", "install", ".[mic]"],
        ["cat"],
    ]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("tandem serve --model M", "tandem serve --modell M"),
        ("python -m gateway --http-port 1", "python -m gateway --http-port one"),
        (
            "python -m decoder_service --model M --engine vllm",
            "python -m decoder_service --model M --engine x",
        ),
        ("python -m benchmarks.streaming --streams 1", "python -m benchmarks.streaming --stream 1"),
        ("bash benchmarks/gpu/run.sh tp", "bash benchmarks/gpu/run.sh tea"),
        ("make demo", "make coffee"),
        ("pip install '.[gateway,mic]' torch", "pip install '.[gatewai]'"),
        ("pip install torch -e '.[mic]'", "pip install torch -f '.[mic]'"),
        ("python3.11 -m venv ~/x && . ~/x/bin/activate", "python3.11 -m venv ~/x && . ~/y/bin/activate"),
        (
            "docker build -f deploy/docker/gateway.Dockerfile -t tandem-gateway:0.1.0 .",
            "docker build -f deploy/docker/gateway.Dockerfile -t gateway:0.1.0 .",
        ),
        (
            "helm install x deploy/helm/tandem --set decoder.tensorParallel=4",
            "helm install x deploy/helm/tandem --set decoder.tensorParallel=3",
        ),
        ("kubectl logs deployment/speech-tandem-gateway", "kubectl logs deployment/speech-tandem-gate"),
        (
            "kubectl apply -k deploy/kustomize/overlays/production",
            "kubectl apply -k deploy/kustomize/overlays/x",
        ),
    ],
)
def test_what_does_not_exist_is_found(good: str, bad: str) -> None:
    check(good, {})
    with pytest.raises(AssertionError):
        check(bad, {})


def test_an_unknown_program_is_not_let_through() -> None:
    with pytest.raises(AssertionError, match="nobody knows"):
        check("frobnicate --all", {})


def test_info_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# x\n\n```bash no-run: needs a GPU\nnvidia-smi\n```\n\n```\na picture\n```\n")
    first, second = blocks_of(page)
    assert (first.line, first.language, first.mark, first.reason) == (3, "bash", "no-run", "needs a GPU")
    assert (first.text, first.runs) == ("nvidia-smi\n", False)
    assert (second.language, second.text, second.runs) == ("", "a picture\n", False)
    page.write_text("```bash\nno end\n")
    with pytest.raises(ValueError, match="not closed"):
        blocks_of(page)
