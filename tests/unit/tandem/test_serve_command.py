"""Which ports `tandem serve` takes."""

from __future__ import annotations

import pytest

from tandem.cli import build_parser, main


@pytest.mark.parametrize(
    "flag", ["--port", "--http-port", "--realtime-port", "--encoder-port", "--decoder-port"]
)
@pytest.mark.parametrize("value", ["99999", "65536", "-1", "http"])
def test_what_is_no_port_is_refused(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        build_parser().parse_args(["serve", f"{flag}={value}"])
    assert refused.value.code == 2
    assert f"argument {flag}" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--http-port", "--realtime-port"])
def test_some_ports_may_be_none(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = build_parser().parse_args(["serve", f"{flag}=0"])
    assert vars(options)[flag.strip("-").replace("-", "_")] == 0
    with pytest.raises(SystemExit):
        build_parser().parse_args(["serve", "--port=0"])


def test_the_ports_of_further_processes_must_be_there_too(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "none", "--encoder-port", "65530", "--encoders", "2"]
    assert main(["serve", *flags]) == 1
    assert capsys.readouterr().err == "tandem serve: port 65540 is beyond 65535\n"
