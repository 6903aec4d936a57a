"""Mutual TLS on every hop and API keys on every protocol, with certificates made here."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import InvalidStatus

from tandem import AsyncClient, Client, RecognizeOptions, StreamOptions
from tandem.access import Access
from tandem.api_keys import new_key
from tandem.cli import main
from tandem.errors import Unauthenticated
from tandem.launcher import is_ready
from tandem.live_events import Ended
from tandem.streaming_client import LiveStream
from tests.support.certificates import Authority
from tests.support.secure import SecureStack, answers
from tests.support.services import NANO

SHORT = RecognizeOptions(vad=False, max_new_tokens=3)
RECORDING = NANO / "mandarin_206ms.wav"


@pytest.fixture
def services(secure_services: SecureStack) -> SecureStack:
    return secure_services


@pytest.fixture
def trusted(services: SecureStack) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(services.authority.ca))
    context.load_cert_chain(services.client.cert, services.client.key)
    return context


def named(access: Access) -> Access:
    """The gateway's certificate is for another name than the address that the test calls."""
    return replace(access, server_name="tier.test")


def test_a_recording_passes_all_three_tiers(services: SecureStack) -> None:
    with Client(services.gateway, access=named(services.access)) as client:
        assert client.recognize(RECORDING, SHORT, timeout=60).segments


async def test_asyncio_calls_and_live_streams_carry_the_key_too(services: SecureStack) -> None:
    async with AsyncClient(services.gateway, access=named(services.access)) as client:
        assert (await client.recognize(RECORDING, SHORT, timeout=60)).segments
    async with LiveStream(services.gateway, StreamOptions(SHORT), access=named(services.access)) as live:
        await live.send(bytes(6400))
        live.end()
        assert isinstance([event async for event in live][-1], Ended)


def test_who_gets_in(services: SecureStack) -> None:
    whole = named(services.access)
    assert answers(services, whole)
    assert not answers(services, Access(api_key=services.key)), "without TLS"
    assert not answers(services, replace(whole, certificate="", key="")), "without a client certificate"
    assert not answers(services, replace(whole, server_name="other.test")), "the wrong server"
    directory = services.keys_file.parent
    stranger = Authority(directory, "stranger").issue("intruder")
    forged = replace(whole, certificate=stranger.cert, key=stranger.key)
    assert not answers(services, forged), "a certificate of another authority"


@pytest.mark.parametrize("key", ["", "tandem-wrong", "Bearer"])
def test_a_wrong_key_is_a_typed_error(services: SecureStack, key: str) -> None:
    with (
        Client(services.gateway, access=replace(named(services.access), api_key=key)) as client,
        pytest.raises(Unauthenticated),
    ):
        client.recognize(RECORDING, SHORT, timeout=20)


def test_tiers_behind_the_gateway_want_certificates_too(services: SecureStack, tmp_path: Path) -> None:
    assert not is_ready(services.encoder)
    output = tmp_path / "tensors.npz"
    access = named(services.access)
    command = ["encode", str(RECORDING), "-o", str(output), "--server", services.encoder]
    flags = [f"--tls-ca={access.ca}", f"--tls-cert={access.certificate}", f"--tls-key={access.key}"]
    assert main([*command, *flags, f"--tls-server-name={access.server_name}"]) == 0
    assert output.is_file()


def test_health_needs_neither_certificate_nor_key(services: SecureStack) -> None:
    for address in services.health.values():
        assert is_ready(address)


def test_http_and_websocket_want_the_key(services: SecureStack, trusted: ssl.SSLContext) -> None:
    base = f"https://localhost:{services.http_port}"
    trusted.check_hostname = False
    with httpx.Client(base_url=base, verify=trusted, timeout=60) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 200
        refused = client.post("/asr", files={"file": RECORDING.read_bytes()})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["reason"] == "UNAUTHENTICATED"
        headers = {"authorization": f"Bearer {services.key}"}
        assert client.post("/asr", files={"file": RECORDING.read_bytes()}, headers=headers).status_code == 200
    with pytest.raises(httpx.TransportError), httpx.Client(verify=False) as stranger:
        stranger.get(f"{base}/health")
    for path in (f"localhost:{services.http_port}/ws", f"localhost:{services.realtime_port}"):
        asyncio.run(websocket_wants_the_key(f"wss://{path}", trusted, headers))


async def websocket_wants_the_key(url: str, trusted: ssl.SSLContext, headers: dict[str, str]) -> None:
    # Not the client with threads: in Python 3.11 a TLS socket fails where one sends while another receives.
    with pytest.raises(InvalidStatus) as error:
        async with websocket(url, ssl=trusted):
            pass
    assert error.value.response.status_code in (401, 403)
    async with websocket(url, ssl=trusted, additional_headers=headers) as connection, asyncio.timeout(20):
        await connection.send("START")
        assert "started" in str(await connection.recv())


def test_a_key_that_is_added_works_and_one_that_is_removed_does_not(services: SecureStack) -> None:
    before = services.keys_file.read_text(encoding="utf-8")
    key, line = new_key("second")
    fresh = replace(named(services.access), api_key=key)
    with Client(services.gateway, access=fresh) as client:
        services.keys_file.write_text(f"{before}{line}\n", encoding="utf-8")
        assert client.capabilities().model
        services.keys_file.write_text(before, encoding="utf-8")
        with pytest.raises(Unauthenticated):
            client.capabilities()


@pytest.fixture
def original(services: SecureStack, tmp_path: Path) -> Iterator[None]:
    """The server's certificate and key are put back afterwards."""
    files = (services.server.key, services.server.cert)
    for file in files:
        shutil.copy(file, tmp_path)
    yield
    for file in files:
        shutil.copy(tmp_path / file.name, file)


def test_a_renewed_certificate_serves_new_connections(
    services: SecureStack, trusted: ssl.SSLContext, original: None
) -> None:
    renewed = services.authority.issue("renewed", host="renewed.test")
    shutil.copy(renewed.key, services.server.key)
    shutil.copy(renewed.cert, services.server.cert)
    assert answers(services, replace(services.access, server_name="renewed.test"))
    for port in (services.http_port, services.realtime_port):
        for host in ("renewed.test", None):
            assert ("DNS", "renewed.test") in certificate_names(port, trusted, host)


def certificate_names(port: int, context: ssl.SSLContext, host: str | None) -> list[tuple[str, str]]:
    """What a server's certificate is for; it is asked for that of `host`, or of none."""
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        certificate: Any = encrypted.getpeercert()
    return list(certificate["subjectAltName"])
