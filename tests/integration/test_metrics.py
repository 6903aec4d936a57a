"""What each tier tells Prometheus about real requests, and that docs/metrics.md lists every name."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tandem import Client, RecognizeOptions
from tandem.errors import InvalidAudio
from tandem.launcher import Addresses, Stack, StackConfig
from tests.support.metrics import Samples, scrape, value
from tests.support.ports import free_port
from tests.support.services import NANO

DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"
PORTS = {name: free_port() for name in ("gateway", "encoder", "decoder")}


@pytest.fixture(scope="module")
def services(derived_files: None) -> Iterator[Stack]:
    def flags(tier: str) -> list[str]:
        return ["--metrics-port", str(PORTS[tier])]

    with tempfile.TemporaryDirectory(prefix="tandem-metrics-") as directory:
        root = Path(directory)
        inner = Addresses.unix(root)
        config = StackConfig(
            str(NANO),
            inner,
            engine="transformers",
            log_dir=root,
            http_port=free_port(),
            # A trailing comma: a pool of one.
            gateway_args=[*flags("gateway"), "--encoder", f"{inner.encoder},"],
            encoder_args=flags("encoder"),
            decoder_args=["--max-model-len", "1024", *flags("decoder")],
        )
        with Stack(config) as running:
            yield running


@pytest.fixture(scope="module")
def scraped(services: Stack) -> dict[str, Samples]:
    """After two recordings over gRPC, of which one is garbage, and one over HTTP."""
    recording = (NANO / "mandarin_206ms.wav").read_bytes()
    with Client(services.address) as client:
        client.recognize(recording, RecognizeOptions(vad=False, max_new_tokens=4), timeout=60)
        with pytest.raises(InvalidAudio):
            client.recognize(b"noise" * 100, timeout=60)
    url = f"http://127.0.0.1:{services.config.http_port}"
    answer = httpx.post(f"{url}/asr", files={"file": ("a.wav", recording)}, timeout=60)
    answer.raise_for_status()
    httpx.get(f"{url}/no-such-page")
    return {tier: scrape(port) for tier, port in PORTS.items()}


def test_calls_are_counted_by_method_and_outcome(scraped: dict[str, Samples]) -> None:
    gateway = scraped["gateway"]
    assert value(gateway, "tandem_requests_total", method="Recognize", code="OK") == 1
    assert value(gateway, "tandem_requests_total", method="Recognize", code="INVALID_ARGUMENT") == 1
    assert value(gateway, "tandem_request_seconds_count", method="Recognize") == 2
    assert value(gateway, "tandem_open_requests", method="Recognize") == 0
    assert value(scraped["encoder"], "tandem_requests_total", method="Transcribe", code="OK") >= 1
    assert value(scraped["decoder"], "tandem_requests_total", method="GenerateAtOnce", code="OK") >= 1


def test_http_requests_are_counted_by_route_not_by_path(scraped: dict[str, Samples]) -> None:
    gateway = scraped["gateway"]
    assert value(gateway, "tandem_http_requests_total", route="/asr", method="POST", status="200") == 1
    assert value(gateway, "tandem_http_requests_total", route="none", method="GET", status="404") == 1


def test_audio_and_tokens_add_up(scraped: dict[str, Samples]) -> None:
    assert value(scraped["gateway"], "tandem_gateway_audio_seconds_total") == pytest.approx(0.412, abs=0.01)
    assert value(scraped["encoder"], "tandem_encoder_audio_seconds_total") >= 0.2
    assert value(scraped["decoder"], "tandem_decoder_tokens_total") >= 4
    assert value(scraped["encoder"], "tandem_encoder_queued_audio_seconds") == 0
    assert value(scraped["decoder"], "tandem_decoder_max_waiting_requests") == 256
    assert value(scraped["gateway"], "tandem_gateway_stage_seconds_count", stage="total") == 2


def test_the_same_recording_with_other_hotwords_is_not_encoded_again(services: Stack) -> None:
    recording = (NANO / "english_9s.wav").read_bytes()

    def encoded(*hotwords: str) -> float:
        with Client(services.address) as client:
            options = RecognizeOptions(vad=False, max_new_tokens=4, hotwords=hotwords)
            client.recognize(recording, options, timeout=60)
        return value(scrape(PORTS["encoder"]), "tandem_encoder_audio_seconds_total")

    assert encoded() == encoded("Tandem")


def test_the_page_lists_every_name_and_no_other(scraped: dict[str, Samples]) -> None:
    listed = set(re.findall(r"`(tandem_\w+)`", DOCUMENTED.read_text(encoding="utf-8")))
    found = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for samples in scraped.values()
        for name, _ in samples
        if name.startswith("tandem_") and not name.endswith("_created")
    }
    optional = {"tandem_decoder_kv_cache_usage"}
    assert found - listed == set()
    assert listed - found <= optional
