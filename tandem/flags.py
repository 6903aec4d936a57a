"""Command-line flags of the tiers, each with an environment variable as its default."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any


class FlagParser:
    """An argparse parser whose flags take their defaults from a config dataclass and from the environment.

    With prefix TANDEM_DECODER, flag --max-model-len is variable TANDEM_DECODER_MAX_MODEL_LEN and field
    max_model_len.
    """

    def __init__(self, program: str, description: str, prefix: str, config: Any) -> None:
        variables = (
            f"Each flag has an environment variable that sets its default, --log-level {prefix}_LOG_LEVEL."
        )
        self.parser = argparse.ArgumentParser(prog=program, description=description, epilog=variables)
        self._prefix = prefix
        self._defaults = {item.name: item.default for item in fields(config)}

    def add(self, name: str, kind: Callable[[str], Any], text: str, **extra: Any) -> None:
        """One flag; `kind` converts the string, from the command line and the environment alike.

        A field without a default makes the flag required where the environment does not set it.
        """
        field = name.replace("-", "_")
        variable = f"{self._prefix}_{field.upper()}"
        value = os.environ.get(variable, self._defaults[field])
        if value is MISSING:
            self.parser.add_argument(f"--{name}", type=kind, required=True, help=text, **extra)
            return
        if "choices" in extra and value not in extra["choices"]:
            self.parser.error(f"{variable}: {value!r} is not one of {extra['choices']}")
        shown = "" if value in (None, "") else f" (default {value})"
        self.parser.add_argument(f"--{name}", type=kind, default=value, help=text + shown, **extra)

    def parse(self, arguments: Sequence[str] | None = None) -> dict[str, Any]:
        return vars(self.parser.parse_args(arguments))


def switch(text: str) -> bool:
    """The value of a flag that is on or off."""
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return known[text.lower()]
