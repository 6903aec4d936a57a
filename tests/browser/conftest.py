"""A real stack over the demo model, and Chromium whose microphone plays the example meeting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from scipy.signal import resample_poly

from tests.support.live import live_stack

ROOT = Path(__file__).parents[2]
MEETING = ROOT / "examples" / "meeting.flac"
TURNS = json.loads(MEETING.with_suffix(".json").read_text(encoding="utf-8"))["turns"]
CHROMIUM = "/usr/bin/chromium"
# Milliseconds; other tests may keep the machine busy.
_PATIENCE = 60_000
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
_MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def url(derived_files: None) -> Iterator[str]:
    """The page of a gateway that takes one live session at a time."""
    arguments = ["--max-sessions", "1"]
    with live_stack(http=True, model=ROOT / "models" / "demo", gateway_args=arguments) as running:
        yield f"http://localhost:{running.config.http_port}/"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def deaf(playwright: Playwright) -> Iterator[Browser]:
    """A browser without any microphone."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
    yield browser
    browser.close()


@pytest.fixture
def hearing(playwright: Playwright, tmp_path: Path) -> Iterator[Callable[[float], Browser]]:
    """Browsers whose microphone plays the first seconds of the meeting once, then silence."""
    opened: list[Browser] = []

    def launch(seconds: float) -> Browser:
        samples, rate = soundfile.read(MEETING)
        path = tmp_path / "microphone.wav"
        cut = np.concatenate([samples[: int(seconds * rate)], np.zeros(rate)])
        soundfile.write(path, resample_poly(cut, 48_000, rate), 48_000, subtype="PCM_16")
        play = f"--use-file-for-fake-audio-capture={path}%noloop"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *_MICROPHONE, play])
        opened.append(browser)
        return browser

    yield launch
    for browser in opened:
        browser.close()


@pytest.fixture
def open_page(url: str) -> Iterator[OpenPage]:
    """Opens the page; at the end nothing may have been reported on its console."""
    complaints: list[str] = []

    def open_it(browser: Browser, script: str = "", **options: object) -> Page:
        page = browser.new_page(**options)  # type: ignore[arg-type]
        page.set_default_timeout(_PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        if script:
            page.add_init_script(script)
        page.goto(url)
        page.wait_for_selector('.service[data-state="ready"]')
        return page

    yield open_it
    assert complaints == []
