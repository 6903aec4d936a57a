"""Flags, their environment equivalents, and refusal of nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from decoder_service.config import DecoderConfig, parse


def test_defaults() -> None:
    config = parse(["--model", "somewhere"])
    assert config == DecoderConfig(model="somewhere")
    assert config.address == "0.0.0.0:50053"


def test_flags_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DECODER_MAX_MODEL_LEN", "2048")
    monkeypatch.setenv("TANDEM_DECODER_DTYPE", "bf16")
    monkeypatch.setenv("TANDEM_DECODER_LOG_PROBS", "true")
    monkeypatch.setenv("TANDEM_DECODER_PORT", "1")
    config = parse(["--model", "x", "--port", "50099", "--enforce-eager", "--max-num-seqs", "7"])
    assert config.address == "0.0.0.0:50099"
    settings = config.engine_settings(Path("weights"))
    assert (settings.max_model_len, settings.dtype, settings.max_num_seqs) == (2048, "bf16", 7)
    assert settings.log_probs is True
    assert settings.enforce_eager is True
    assert settings.vllm_metrics is False


def test_the_model_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DECODER_MODEL", "from/environment")
    assert parse([]).model == "from/environment"


def test_listen_wins_over_port() -> None:
    assert (
        parse(["--model", "x", "--listen", "unix:/run/d.sock", "--port", "1"]).address == "unix:/run/d.sock"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model", "x", "--engine", "other"],
        ["--model", "x", "--gpu-memory-utilization", "1.5"],
        ["--model", "x", "--max-num-seqs", "0"],
        ["--model", "x", "--log-probs", "perhaps"],
    ],
)
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2


def test_nonsense_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TANDEM_DECODER_DTYPE", "int4")
    with pytest.raises(SystemExit):
        parse(["--model", "x"])
    assert "TANDEM_DECODER_DTYPE" in capsys.readouterr().err
