"""The web page over HTTP: what is there, what is not, caching, what it may load, and its WebSocket."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gateway.api.http import make_app
from gateway.api.realtime_defaults import RealtimeDefaults
from gateway.keys import KeyRing
from gateway.service import GatewayService, ServiceLimits
from tandem.api_keys import new_key


def client() -> httpx.AsyncClient:
    app = make_app(GatewayService(ServiceLimits(1000, 10.0)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


async def test_the_page_and_every_file_it_names() -> None:
    async with client() as http:
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
        names = set(re.findall(r'"(web/[\w.]+)', page.text))
        modules = re.findall(r'from "\./([\w.]+)"', (await http.get("/web/app.js")).text)
        names |= {f"web/{module}" for module in modules} | {"web/worklet.js", "web/resample.js"}
        for name in names:
            answer = await http.get(f"/{name}")
            assert answer.status_code == 200, name
            if name.endswith(".js"):
                assert answer.headers["content-type"].startswith("text/javascript")


async def test_with_keys_the_page_opens_and_what_it_asks_for_does_not(tmp_path: Path) -> None:
    key, line = new_key("page")
    (tmp_path / "keys").write_text(line, encoding="utf-8")
    app = make_app(GatewayService(ServiceLimits(1000, 10.0)), keys=KeyRing(tmp_path / "keys"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        for path, status in (("/", 200), ("/web/app.js", 200), ("/web/service.json", 401), ("/docs", 401)):
            assert (await http.get(path)).status_code == status
        known = {"authorization": f"Bearer {key}"}
        assert (await http.get("/web/service.json", headers=known)).status_code == 503
    # A browser hangs up unless one of the subprotocols that it offers is chosen.
    offered = f"openai-insecure-api-key.{key}"
    for subprotocols, chosen in ((["tandem", offered], "tandem"), ([offered], offered)):
        with TestClient(app).websocket_connect("/ws/realtime", subprotocols=subprotocols) as socket:
            assert socket.accepted_subprotocol == chosen


async def test_unchanged_files_are_not_sent_again() -> None:
    async with client() as http:
        etag = (await http.get("/web/app.js")).headers["etag"]
        again = await http.get("/web/app.js", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        head = await http.head("/")
        assert (head.status_code, head.content) == (200, b"")


async def test_nothing_outside_the_folder() -> None:
    async with client() as http:
        for path in ("/web/nothing.js", "/web/..%2Fservice.py", "/web/%2e%2e/service.py"):
            assert (await http.get(path)).status_code == 404


async def test_before_the_encoder_is_found_the_page_is_told_so() -> None:
    async with client() as http:
        answer = await http.get("/web/service.json")
    assert answer.status_code == 503
    assert "waiting for the encoder" in answer.json()["error"]["message"]


def test_its_websocket_speaks_the_protocol_and_finds_the_ends_itself() -> None:
    service = GatewayService(ServiceLimits(1000, 10.0))
    app = make_app(service, realtime=RealtimeDefaults(client_endpoint=True))
    said = {
        "LANGUAGE:en": {"event": "language_set", "language": "en"},
        "COMMIT": {"event": "error", "error": "COMMIT requires --endpoint-mode client"},
        "START": {"event": "error", "error": "the gateway is waiting for the encoder"},
        "STOP": {"event": "stopped"},
    }
    with TestClient(app).websocket_connect("/ws/realtime") as socket:
        for command, answer in said.items():
            socket.send_text(command)
            assert socket.receive_json() == answer


def test_its_websocket_refuses_other_origins() -> None:
    app = make_app(GatewayService(ServiceLimits(1000, 10.0)), cors_origins=["http://friend.example"])
    for origin, welcome in (("http://evil.example", False), ("http://friend.example", True)):
        opening = TestClient(app).websocket_connect("/ws/realtime", headers={"origin": origin})
        if welcome:
            with opening as socket:
                socket.send_text("STOP")
                assert socket.receive_json() == {"event": "stopped"}
        else:
            with pytest.raises(WebSocketDisconnect), opening:
                pass
