"""Generates the gRPC stubs before the packages are collected; everything else is in pyproject.toml."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
runpy.run_path(str(ROOT / "protos" / "generate.py"))["generate"](ROOT)
setup()
