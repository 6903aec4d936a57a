"""Flags of the gateway that need more than a number."""

from __future__ import annotations

import pytest

from gateway.config import parse


def test_origins_may_be_repeated_and_replace_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parse([]).cors_origin == ()
    given = ["--cors-origin", "https://a.example", "--cors-origin", "https://b.example/"]
    assert parse(given).cors_origin == ("https://a.example", "https://b.example")
    monkeypatch.setenv("TANDEM_GATEWAY_CORS_ORIGIN", "https://c.example, https://d.example")
    assert parse([]).cors_origin == ("https://c.example", "https://d.example")
    assert parse(given[:2]).cors_origin == ("https://a.example",)


def test_files_may_be_named_only_through_a_socket(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--listen", "unix:/tmp/gateway.sock", "--local-files"]).local_files
    with pytest.raises(SystemExit):
        parse(["--listen", "127.0.0.1:50051", "--local-files"])
    assert "--local-files needs --listen unix:PATH" in capsys.readouterr().err
