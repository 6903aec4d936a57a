"""What the operator says about sessions of the real-time WebSocket whose clients say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config import GatewayConfig
from gateway.text.replace import parse_replacements
from tandem.convert import check_terms
from tandem.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class RealtimeDefaults:
    """What a session has before its client says anything."""

    language: str | None = None
    hotwords: tuple[str, ...] = ()
    replacements: Mapping[str, str] = field(default_factory=dict)
    speakers: bool = False
    client_endpoint: bool = False


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if path else ""


def realtime_defaults(config: GatewayConfig) -> RealtimeDefaults:
    """From the flags and the files that they name, hotwords one a line.

    OSError where one cannot be read, ValueError where there are more hotwords than a request may have.
    """
    lines = map(str.strip, _read(config.hotword_file).splitlines())
    hotwords = tuple(line for line in lines if line)
    try:
        check_terms(config.language, hotwords)
    except InvalidRequest as error:
        raise ValueError(f"--language or {config.hotword_file}: {error}") from error
    return RealtimeDefaults(
        language=config.language or None,
        hotwords=hotwords,
        replacements=parse_replacements(_read(config.postprocess_hotword_file)),
        speakers=config.enable_spk,
        client_endpoint=config.endpoint_mode == "client",
    )
