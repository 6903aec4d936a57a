"""What the tiers say about their flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import decoder_service.config
import encoder_service.config
import gateway.config


@pytest.mark.parametrize(
    ("parse", "variable"),
    [
        (gateway.config.parse, "TANDEM_GATEWAY_LOG_LEVEL"),
        (encoder_service.config.parse, "TANDEM_ENCODER_LOG_LEVEL"),
        (decoder_service.config.parse, "TANDEM_DECODER_LOG_LEVEL"),
    ],
)
def test_help_says_how_variables_are_named(
    parse: Callable[[Sequence[str]], Any], variable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert f"environment variable that sets its default, --log-level {variable}." in " ".join(
        capsys.readouterr().out.split()
    )
