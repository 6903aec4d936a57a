"""Checks of commands that cannot run here: what they name exists, their programs know their flags."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

import decoder_service.config
import encoder_service.config
import gateway.config
from tandem.cli import build_parser
from tests.deploy.chart import CHART, RELEASE, render, tool
from tests.docs.blocks import ROOT

TIERS: Mapping[str, Callable[[Sequence[str]], Any]] = {
    "gateway": gateway.config.parse,
    "encoder_service": encoder_service.config.parse,
    "decoder_service": decoder_service.config.parse,
}
_BETWEEN = re.compile(r"[|;&]+")
_ASSIGNMENT = re.compile(r"\w+=.*")
_REDIRECTION = re.compile(r"\d*[<>]+")


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command, without assignments, redirections and comments."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if _BETWEEN.fullmatch(word):
                if words:
                    yield words
                words = []
            elif words or not _ASSIGNMENT.fullmatch(word):
                words.append(word)


def check(script: str, values: Mapping[str, str]) -> None:
    """AssertionError names what does not exist. `values` are the page's files of chart values."""
    environments = set[str]()
    for words in commands(script):
        program, arguments = words[0], _without_redirections(words[1:])
        assert program in _CHECKS, f"nobody knows how to check {program!r}: {words}"
        if arguments[:2] == ["-m", "venv"]:
            environments.update(arguments[2:])
        elif program != "." or arguments[0].removesuffix("/bin/activate") not in environments:
            _CHECKS[program](arguments, values)


def _without_redirections(words: list[str]) -> list[str]:
    kept = list(words)
    while (at := next((i for i, word in enumerate(kept) if _REDIRECTION.fullmatch(word)), None)) is not None:
        del kept[at : at + 2]
    return kept


def _parsed(parse: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> None:
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message), contextlib.redirect_stdout(message):
            parse(arguments)
    except SystemExit as error:
        assert error.code == 0, f"{arguments}: {message.getvalue()}"


def _tandem(arguments: list[str], values: Mapping[str, str]) -> None:
    _parsed(build_parser().parse_args, arguments)


def _python(arguments: list[str], values: Mapping[str, str]) -> None:
    if arguments[:1] != ["-m"]:
        assert (ROOT / arguments[0]).is_file(), f"{arguments[0]} is not there"
        _flags_in(ROOT / arguments[0], arguments[1:])
        return
    module, rest = arguments[1], arguments[2:]
    if module in TIERS:
        _parsed(TIERS[module], rest)
        return
    file = ROOT / (module.replace(".", "/") + ".py")
    assert file.is_file(), f"the module {module} is not there"
    _flags_in(file, rest)


def _flags_in(file: Path, arguments: Sequence[str]) -> None:
    """Programs whose parser is inside of main(): each flag stands in the source."""
    source = file.read_text(encoding="utf-8")
    for word in arguments:
        assert not word.startswith("--") or f'"{word}"' in source, f"{file.name} has no {word}"


def _make(arguments: list[str], values: Mapping[str, str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for word in arguments:
        assert "=" in word or word in targets, f"the Makefile has no target {word}"


def _pip(arguments: list[str], values: Mapping[str, str]) -> None:
    assert arguments[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = {item for extra in project["optional-dependencies"].values() for item in extra}
    names = {re.split(r"[^\w-]", item)[0] for item in known} | {project["name"]}
    for word in (word for word in arguments[1:] if word != "-e"):
        wanted = re.fullmatch(r"(\.|[\w-]+)(?:\[([\w,-]+)\])?(?:[=<>]=[\d.]+)?", word)
        assert wanted is not None, f"pip cannot install {word}"
        assert wanted[1] == "." or wanted[1] in names, f"no extra installs {wanted[1]}"
        for extra in (wanted[2] or "").split(","):
            assert not extra or extra in project["optional-dependencies"], f"there is no extra {extra}"


def _docker(arguments: list[str], values: Mapping[str, str]) -> None:
    file = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    given = dict(pairwise(arguments))
    assert (ROOT / given["-f"]).is_file(), f"{given['-f']} is not there"
    if arguments[0] == "build":
        images = {service["image"] for service in file["services"].values()}
        assert given["-t"] in images, f"nothing uses the image {given['-t']}"
    else:
        assert arguments[0] == "compose", f"docker {arguments[0]}"


def _helm(arguments: list[str], values: Mapping[str, str]) -> None:
    """What would be installed can be rendered."""
    verb, release, chart, *rest = (word for word in arguments if word not in ("--install", "--wait"))
    assert verb in ("install", "upgrade", "template"), f"helm {verb}"
    assert (ROOT / chart).resolve() == CHART, f"{chart} is not the chart"
    flags: list[str] = []
    given = ""
    for flag, value in pairwise([*rest, ""]):
        if flag in ("-f", "--values"):
            assert value in values, f"the page has no values called {value}"
            given += values[value]
        elif flag in ("--set", "--set-string"):
            flags += [flag, value]
        else:
            assert not flag.startswith("-") or flag in ("--namespace", "--create-namespace"), flag
    command = [str(tool("helm4")), "template", release, str(CHART), *flags, "-f", "-"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@functools.cache
def _in_the_cluster() -> frozenset[str]:
    """kind/name of everything that the chart makes."""
    return frozenset(f"{item['kind'].lower()}/{item['metadata']['name']}" for item in render({}))


def _kubectl(arguments: list[str], values: Mapping[str, str]) -> None:
    given = dict(pairwise(arguments))
    if "-k" in given:
        command = [str(tool("kubectl")), "kustomize", str(ROOT / given["-k"])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    for word in arguments:
        if re.fullmatch(r"(deployment|service|job)/[\w-]+", word):
            assert word in _in_the_cluster(), f"a release called {RELEASE} has no {word}"


def _bash(arguments: list[str], values: Mapping[str, str]) -> None:
    """Scripts of this repository, whose arguments are functions in them."""
    script = ROOT / arguments[0]
    assert script.is_file(), f"{arguments[0]} is not there"
    stages = re.findall(r"^(\w+)\(\)", script.read_text(encoding="utf-8"), re.M)
    for word in arguments[1:]:
        assert word in stages, f"{script.name} has no stage {word}"


def _file(arguments: list[str], values: Mapping[str, str]) -> None:
    for word in arguments:
        if "/" in word:
            assert (ROOT / word).exists(), f"{word} is not there"


def _anything(arguments: list[str], values: Mapping[str, str]) -> None:
    """Programs of other people, of which nothing can be known here."""


_CHECKS: Mapping[str, Callable[[list[str], Mapping[str, str]], None]] = {
    ".": _file,
    "bash": _bash,
    "cd": _anything,
    "cuda-gdb": _anything,
    "docker": _docker,
    "export": _anything,
    "git": _anything,
    "helm": _helm,
    "kubectl": _kubectl,
    "make": _make,
    "nvidia-smi": _anything,
    "pip": _pip,
    "promtool": _file,
    "python": _python,
    "python3.11": _python,
    "tandem": _tandem,
}
