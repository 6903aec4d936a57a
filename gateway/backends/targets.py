"""Where the encoders are: a list of addresses, or a name that is looked up again and again."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

Resolve = Callable[[], Awaitable[frozenset[str]]]
"""The gRPC targets of all encoders there are just now. Raises OSError when the name service fails."""

_DNS = "dns:///"


def is_pool(target: str) -> bool:
    """Whether a target names several encoders that the gateway should choose between."""
    return "," in target or target.startswith(_DNS)


def resolver(target: str) -> Resolve:
    """`a:1,b:2` as it stands; `dns:///name:port` as the addresses of the name (a headless service)."""
    if not target.startswith(_DNS):
        fixed = frozenset(item.strip() for item in target.split(",") if item.strip())

        async def listed() -> frozenset[str]:
            return fixed

        return listed
    host, _, port = target.removeprefix(_DNS).rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{target!r} is not dns:///name:port")

    async def looked_up() -> frozenset[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        return frozenset(_target(str(address[0]), int(port)) for *_, address in found)

    return looked_up


def _target(address: str, port: int) -> str:
    if ipaddress.ip_address(address).version == 6:
        return f"ipv6:[{address}]:{port}"
    return f"ipv4:{address}:{port}"
