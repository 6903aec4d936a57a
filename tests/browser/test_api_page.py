"""The API page at /docs in real Chromium, which nothing outside the gateway helps to show."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import Playwright, expect

from tests.browser.conftest import CHROMIUM, QUIET

HOST = "tandem.example"
"""Not localhost, for which Swagger's page makes exceptions."""


def test_the_api_page_shows_and_tries_operations_without_any_other_server(
    url: str, playwright: Playwright
) -> None:
    elsewhere = f"--host-resolver-rules=MAP {HOST} 127.0.0.1"
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, elsewhere])
    try:
        page = browser.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://{HOST}:{urlsplit(url).port}/docs")
        for path in ("/asr", "/v1/audio/transcriptions", "/v1/models", "/health"):
            expect(page.locator(f'.opblock-summary-path[data-path="{path}"]')).to_be_visible()
        health = page.locator(".opblock", has=page.locator('[data-path="/health"]'))
        health.locator(".opblock-summary-control").click()
        health.get_by_role("button", name="Try it out").click()
        health.get_by_role("button", name="Execute").click()
        expect(health.locator(".live-responses-table tbody .response-col_status")).to_have_text("200")
        page.wait_for_load_state("networkidle")
        assert {urlsplit(address).hostname for address in asked if not address.startswith("data:")} == {HOST}
        assert complaints == []
    finally:
        browser.close()
