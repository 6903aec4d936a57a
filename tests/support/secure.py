"""Three tiers with mutual TLS between all of them and API keys in front."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tandem import Client
from tandem.access import Access
from tandem.api_keys import new_key
from tandem.errors import Unavailable
from tandem.launcher import Tier, spawn, wait_ready
from tests.support.certificates import Authority, Issued
from tests.support.ports import free_port

START_SECONDS = 180


@dataclass(frozen=True, slots=True)
class SecureStack:
    """Addresses of a running stack, and what a client needs to get in."""

    gateway: str
    encoder: str
    health: dict[str, str]
    http_port: int
    realtime_port: int
    authority: Authority
    client: Issued
    server: Issued
    key: str
    keys_file: Path

    @property
    def access(self) -> Access:
        return Access(self.authority.ca, self.client.cert, self.client.key, api_key=self.key)


@contextlib.contextmanager
def secure_stack(model: Path) -> Iterator[SecureStack]:
    """Every connection is checked at both ends; health is asked at addresses of its own."""
    with tempfile.TemporaryDirectory(prefix="tandem-secure-") as directory:
        root = Path(directory)
        authority = Authority(root)
        server, client = authority.issue("server", host="tier.test"), authority.issue("client")
        key, line = new_key("tester")
        keys_file = root / "keys"
        keys_file.write_text(f"# keys of this test\n{line}\n", encoding="utf-8")
        ports = {tier: f"127.0.0.1:{free_port()}" for tier in ("decoder", "encoder", "gateway")}
        health = {tier: f"127.0.0.1:{free_port()}" for tier in ports}
        stack = SecureStack(
            ports["gateway"], ports["encoder"], health, free_port(), free_port(), authority, client,
            server, key, keys_file,
        )  # fmt: skip
        tls = ["--tls-cert", str(server.cert), "--tls-key", str(server.key)]
        tls += ["--tls-client-ca", str(authority.ca)]
        onward = ["--tls-ca", str(authority.ca), "--tls-server-name", "tier.test"]
        weights = ["--model", str(model)]
        http = ["--http-port", str(stack.http_port), "--realtime-port", str(stack.realtime_port)]
        commands = {
            "decoder": ("decoder_service", [*weights, "--engine", "transformers", "--max-model-len", "1024"]),
            "encoder": ("encoder_service", [*weights, *onward, "--decoder", ports["decoder"]]),
            "gateway": (
                "gateway",
                [*onward, "--encoder", ports["encoder"] + ",", "--api-keys", str(keys_file), *http],
            ),
        }
        tiers: list[Tier] = []
        try:
            for tier, (module, flags) in commands.items():
                shared = ["--listen", ports[tier], "--health-listen", health[tier], *tls]
                tiers.append(spawn(tier, module, [*shared, *flags], health[tier], root))
            wait_ready(tiers, START_SECONDS)
            yield stack
        finally:
            for running in tiers:
                running.process.terminate()
            for running in tiers:
                running.end(grace=5)


def answers(stack: SecureStack, access: Access) -> bool:
    """Whether a client with this access gets an answer; False when it cannot even connect."""
    with Client(stack.gateway, access=access) as client:
        try:
            return bool(client.capabilities(timeout=5).model)
        except Unavailable:
            return False
