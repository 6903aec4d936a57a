"""`pip install tandem-asr` without extras is a client: SDK and command line need nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
IMPORTS = """
import importlib.abc, sys
absent = set(sys.argv[1:])
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import tandem
for name in tandem.__all__:
    getattr(tandem, name)
from tandem.cli import build_parser, main
build_parser()
assert main(["key", "somebody"]) == 0
"""


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _with_dependencies(requirements: list[str]) -> set[str]:
    """Names of these distributions and of all that they require on this machine."""
    found: set[str] = set()
    waiting = [_name(item) for item in requirements]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needed = importlib.metadata.requires(name) or []
            waiting += [_name(item) for item in needed if "extra ==" not in item and _is_here(_name(item))]
    return found


def _is_here(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_the_client_needs_the_base_dependencies_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = _with_dependencies(project["dependencies"])
    owners = importlib.metadata.packages_distributions()
    absent = [
        module
        for module, names in owners.items()
        if not any(name.lower().replace("_", "-") in base for name in names) and module != "tandem"
    ]
    assert {"torch", "fastapi", "av", "grpc_reflection"} <= set(absent)
    command = [sys.executable, "-c", IMPORTS, *absent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
