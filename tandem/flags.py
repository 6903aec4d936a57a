"""Command-line flags of the tiers, each with an environment variable as its default."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields, is_dataclass
from typing import Any


class FlagParser:
    """An argparse parser whose flags take their defaults from a config dataclass and from the environment.

    With prefix TANDEM_DECODER, flag --max-model-len is variable TANDEM_DECODER_MAX_MODEL_LEN and field
    max_model_len.
    """

    def __init__(self, program: str, description: str, prefix: str, defaults: object) -> None:
        if not is_dataclass(defaults):
            raise TypeError("defaults must be a dataclass instance")
        self.parser = argparse.ArgumentParser(prog=program, description=description)
        self._prefix = prefix
        self._defaults = {item.name: getattr(defaults, item.name) for item in fields(defaults)}

    def add(self, name: str, kind: Any, text: str, **extra: Any) -> None:
        """One flag; `kind` converts the string, from the command line and the environment alike."""
        field = name.replace("-", "_")
        value = os.environ.get(f"{self._prefix}_{field.upper()}", self._defaults[field])
        shown = "" if value is None else f" (default {value})"
        self.parser.add_argument(f"--{name}", type=kind, default=value, help=text + shown, **extra)

    def parse(self, arguments: Any = None) -> dict[str, Any]:
        return vars(self.parser.parse_args(arguments))
