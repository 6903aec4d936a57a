"""What every class of the SDK stands on: services that it starts itself, or a running server."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tandem.access import Access


class Services:
    """Without `server` (a gRPC address, reached with `access`) the services start as child processes.

    They end with this object. Raises tandem.launcher.LaunchError when they do not start.
    """

    def __init__(self, server: str | None, access: Access | None = None, **engine: Any) -> None:
        self.access = access
        self._services = None
        self._close = weakref.finalize(self, lambda: None)
        if server is not None:
            self.servers: tuple[str, ...] = (server,)
            return
        # Only local use needs what the services are made of.
        from tandem.local import EngineOptions, LocalServices

        self._services = LocalServices(EngineOptions(**engine))
        self.servers = self._services.addresses
        self._close.detach()
        self._close = weakref.finalize(self, self._services.close)

    @property
    def server(self) -> str:
        """The gRPC address of the server, or of the first gateway started here."""
        return self.servers[0]

    @property
    def is_local(self) -> bool:
        """Whether the services were started here."""
        return self._services is not None

    def check_open(self) -> None:
        """ValueError after close()."""
        if not self._close.alive:
            raise ValueError("the model has been closed")

    def check_alive(self) -> None:
        """LaunchError with the end of its log where a service started here has died."""
        if self._services is not None:
            self._services.check()

    def close(self) -> None:
        """End the services that this object started. Also done when it is collected, and at exit."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hotword_list(hotwords: Sequence[str]) -> tuple[str, ...]:
    """A string is a comma-separated list: its characters are never meant."""
    if isinstance(hotwords, str):
        return tuple(word.strip() for word in hotwords.split(",") if word.strip())
    return tuple(hotwords)
