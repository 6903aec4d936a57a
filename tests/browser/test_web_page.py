"""The web page in real Chromium over the real service: a microphone's words, files, keyboard, failures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from tests.browser.conftest import MEETING, TURNS, OpenPage
from tests.support.recordings import recording_path
from tests.support.words import word_error

# A browser that cannot bring a microphone to another rate, as Firefox.
ONE_RATE = """
  window.AudioContext = class extends AudioContext {
    createMediaStreamSource(stream) {
      if (this.sampleRate === 16000) throw new DOMException("different sample-rate", "NotSupportedError");
      return super.createMediaStreamSource(stream);
    }
  };
"""
# Whether the waveform has bars taller than its idle line.
PAINTED = """() => {
  const wave = document.getElementById("wave");
  const above = wave.getContext("2d").getImageData(0, Math.floor(wave.height * 0.4), wave.width, 1);
  return above.data.some((value, at) => at % 4 === 3 && value > 0);
}"""
# Controls that a finger misses: smaller than 44 px, a switch with its label.
TOO_SMALL = """() => [...document.querySelectorAll("button, a, select, textarea, input, summary")]
  .filter((control) => control.checkVisibility())
  .map((control) => control.closest("label") ?? control)
  .filter((control) => Math.min(control.offsetWidth, control.offsetHeight) < 44)
  .map((control) => control.id || control.textContent)"""
Hearing = Callable[[float], Browser]


def spoken(turns: int = len(TURNS)) -> str:
    return " ".join(turn["text"] for turn in TURNS[:turns])


def shown(page: Page) -> str:
    return " ".join(page.locator("#captions p").all_inner_texts())


def commands(page: Page) -> list[str]:
    """Every text message that the page sends, as it does."""
    sent: list[str] = []

    def note(data: str | bytes) -> None:
        if isinstance(data, str):
            sent.append(data)

    page.on("websocket", lambda socket: socket.on("framesent", note))
    return sent


def wait_for_state(page: Page, state: str) -> None:
    page.wait_for_selector(f'body[data-state="{state}"]')


def wait_for_clock(page: Page, seconds: float) -> None:
    """Until the page has listened for so long."""
    for _ in range(600):
        minutes, _, rest = page.inner_text("#clock").partition(":")
        if int(minutes) * 60 + int(rest) >= seconds:
            return
        page.wait_for_timeout(100)
    raise AssertionError("the clock stands still")


def save(page: Page, kind: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save as {kind.upper()}").click()
    assert download.value.suggested_filename.endswith(f".{kind}")
    return download.value.path().read_text(encoding="utf-8")


def test_a_microphones_words_reach_the_page(hearing: Hearing, open_page: OpenPage) -> None:
    page = open_page(hearing(TURNS[3]["end"] + 0.3))
    sent = commands(page)
    page.select_option("#language", "en")
    page.fill("#hotwords", "printer, Thursday")
    page.set_input_files(
        "#list", {"name": "words.txt", "mimeType": "text/plain", "buffer": b"printer\nMay\n"}
    )
    page.click("#record")
    page.wait_for_selector("#partial:not([hidden]) p:not(:empty)")
    assert sent == ["LANGUAGE:en", "HOTWORDS:printer,Thursday,May", "SPK:true", "START"]
    expect(page.locator("#level")).to_have_attribute("aria-valuenow", re.compile(r"-[12]?\d$"))
    assert page.evaluate(PAINTED)
    page.fill("#hotwords", "price")
    page.locator("#hotwords").blur()
    page.select_option("#language", "")
    wait_for_clock(page, TURNS[3]["end"] + 1)
    page.click("#record")
    wait_for_state(page, "idle")
    assert sent[4:] == ["HOTWORDS:price", "LANGUAGE:", "STOP"]
    assert word_error(spoken(4), shown(page)) <= 0.35
    assert page.locator("#partial").is_hidden()
    saved = json.loads(save(page, "json"))
    assert [segment["text"] for segment in saved["segments"]] == page.locator("#captions p").all_inner_texts()
    ends = [0.0, *(segment["end"] for segment in saved["segments"])]
    assert ends == sorted(ends)
    assert ends[-1] <= saved["duration"]


def test_a_lost_connection_loses_no_word(hearing: Hearing, open_page: OpenPage) -> None:
    browser = hearing(TURNS[1]["end"] + 0.3)
    sockets: list[WebSocketRoute] = []
    page = open_page(browser, ONE_RATE)

    def through(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    page.route_web_socket("**/ws/realtime", through)
    page.click("#record")
    wait_for_clock(page, 4)
    sockets[0].close(code=1001)
    expect(page.locator("#notice")).to_contain_text("The connection was lost")
    wait_for_state(page, "live")
    expect(page.locator("#notice")).to_be_hidden()
    wait_for_clock(page, 9)
    page.click("#record")
    wait_for_state(page, "idle")
    assert len(sockets) == 2
    assert word_error(spoken(2), shown(page)) <= 0.35


def test_a_file_becomes_captions_with_speakers_that_play(deaf: Browser, open_page: OpenPage) -> None:
    page = open_page(deaf)
    page.set_input_files("#file", MEETING)
    wait_for_state(page, "idle")
    assert word_error(spoken(), shown(page)) <= 0.35
    colours = page.locator(".who:visible").evaluate_all("all => all.map(who => getComputedStyle(who).color)")
    assert len(set(colours)) == len({turn["speaker"] for turn in TURNS})
    assert "meeting.flac" in page.inner_text("#summary")
    page.locator("#captions time button").last.click()
    expect(page.locator("#captions li").last).to_have_class(re.compile("playing"))
    page.click("#clear")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#notice-action")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#record")).to_be_focused()
    assert word_error(spoken(), shown(page)) <= 0.35


def test_saved_files_and_untrusted_text(deaf: Browser, open_page: OpenPage) -> None:
    page = open_page(deaf)
    evil = "<img src=x onerror=alert(1)> & so"
    segments = [
        {"text": evil, "start": 0.5, "end": 2.0, "speaker": "SPK0"},
        {"text": "你好，世界。", "start": 3661.5, "end": 3662.04, "speaker": "SPK1"},
    ]
    answer = {"text": "", "segments": segments, "duration": 3663.0}
    page.route("**/asr", lambda route: route.fulfill(json=answer))
    page.set_input_files("#file", {"name": "<b>.wav", "mimeType": "audio/wav", "buffer": b"RIFF"})
    expect(page.locator("#captions p")).to_have_count(2)
    assert shown(page) == f"{evil} 你好，世界。"
    assert page.locator("main img, main b").count() == 0
    assert page.get_by_role("log").get_by_role("list").get_by_role("listitem").count() == 2
    assert save(page, "txt") == f"[0:00] Speaker 1: {evil}\n[1:01:01] Speaker 2: 你好，世界。\n"
    assert save(page, "srt") == (
        f"1\n00:00:00,500 --> 00:00:02,000\nSpeaker 1: {evil}\n\n"
        "2\n01:01:01,500 --> 01:01:02,040\nSpeaker 2: 你好，世界。\n"
    )
    assert save(page, "vtt") == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:02.000\n<v Speaker 1>&lt;img src=x onerror=alert(1)&gt; &amp; so\n\n"
        "01:01:01.500 --> 01:01:02.040\n<v Speaker 2>你好，世界。\n"
    )
    saved = json.loads(save(page, "json"))
    assert (saved["source"], saved["duration"], len(saved["segments"])) == ("<b>.wav", 3663, 2)


def test_long_captions_are_cut_into_subtitles_that_fit(deaf: Browser, open_page: OpenPage) -> None:
    page = open_page(deaf)
    long = [" ".join(f"word{n}" for n in range(40)), "语音识别" * 30]
    segments = [{"text": text, "start": 10.0 * n, "end": 10.0 * n + 10} for n, text in enumerate(long)]
    page.route("**/asr", lambda route: route.fulfill(json={"segments": segments, "duration": 20}))
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"RIFF"})
    expect(page.locator("#captions p")).to_have_count(2)
    blocks = [block.splitlines() for block in save(page, "srt").strip().split("\n\n")]
    texts = [block[2] for block in blocks]
    assert " ".join(text for text in texts if "word" in text) == long[0]
    assert "".join(text for text in texts if "word" not in text) == long[1]
    assert all(len(text) <= (90 if "word" in text else 45) for text in texts)
    times = [time for block in blocks for time in block[1].split(" --> ")]
    assert times == sorted(times)
    assert (times[0], times[-1]) == ("00:00:00,000", "00:00:20,000")


def test_errors_of_a_live_session_are_shown(hearing: Hearing, open_page: OpenPage) -> None:
    browser = hearing(2.0)
    first, second = open_page(browser), open_page(browser)
    first.click("#record")
    wait_for_state(first, "live")
    second.click("#record")
    expect(second.locator("#notice[data-kind=error]")).to_contain_text("1 live sessions are open")
    wait_for_state(second, "idle")
    first.click("#record")
    wait_for_state(first, "idle")


def test_a_session_that_the_server_ends_or_refuses_is_explained(
    hearing: Hearing, open_page: OpenPage
) -> None:
    page = open_page(hearing(2.0))

    def serve(socket: WebSocketRoute) -> None:
        def answer(message: str | bytes) -> None:
            if message == "START":
                socket.send(json.dumps({"event": "started"}))
                socket.send(json.dumps({"event": "stopped", "reason": "idle"}))

        socket.on_message(answer)

    page.route_web_socket("**/ws/realtime", serve)
    page.click("#record")
    expect(page.locator("#notice")).to_contain_text("The server heard nothing for some minutes")
    wait_for_state(page, "idle")
    page.unroute_all()
    page.route_web_socket("**/ws/realtime", lambda socket: socket.close(code=1008))
    page.click("#record")
    expect(page.locator("#notice")).to_contain_text("The server cannot be reached")
    wait_for_state(page, "idle")


def test_a_server_that_wants_a_key_is_given_one(deaf: Browser, url: str) -> None:
    page = deaf.new_page()  # the browser itself reports refusals on the console

    def guard(route: Route) -> None:
        known = route.request.headers.get("authorization") == "Bearer right"
        route.continue_() if known else route.fulfill(status=401, json={})

    page.route("**/web/service.json", guard)
    page.goto(url)
    expect(page.locator("#key")).to_be_visible()
    page.keyboard.press("Escape")
    page.click("#notice-action")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-wrong")).to_have_text("The server does not know this key.")
    page.keyboard.type("right")
    page.keyboard.press("Enter")
    page.wait_for_selector('.service[data-state="ready"]')
    page.route("**/asr", guard)
    with page.expect_request("**/asr") as request:
        page.set_input_files("#file", recording_path("mandarin_206ms.wav"))
    assert request.value.headers["authorization"] == "Bearer right"
    protocols = page.evaluate("import('/web/key.js').then(({ keyProtocols }) => keyProtocols())")
    assert protocols == ["tandem", "openai-insecure-api-key.right"]


def test_errors_of_an_upload_are_shown(url: str, deaf: Browser) -> None:
    page = deaf.new_page()  # the browser itself reports these on the console
    page.goto(url)
    page.set_input_files("#file", Path(__file__))
    expect(page.locator("#notice[data-kind=error]")).to_contain_text("The file was not transcribed")
    expect(page.locator("#notice-detail")).not_to_be_empty()
    wait_for_state(page, "idle")
    page.route("**/asr", lambda route: route.abort())
    page.set_input_files("#file", recording_path("mandarin_206ms.wav"))
    expect(page.locator("#notice")).to_contain_text("The connection was lost")
    wait_for_state(page, "idle")


def test_no_microphone_no_permission_and_no_secure_page(deaf: Browser, open_page: OpenPage) -> None:
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', '%s'); };"
    for script, message in (
        (refuse % "NotAllowedError", "blocked"),
        (refuse % "NotFoundError", "No microphone found"),
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined });", "needs a secure page"),
    ):
        page = open_page(deaf, script)
        page.click("#record")
        expect(page.locator("#notice")).to_contain_text(message)
        wait_for_state(page, "idle")


def test_the_keyboard_alone_is_enough(hearing: Hearing, open_page: OpenPage) -> None:
    page = open_page(hearing(2.0))
    reached: list[str] = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        if reached[-1] == "record":
            break
    assert {"help-open", "theme", "language", "hotwords", "speakers", "record"} <= set(reached)
    page.keyboard.press("Enter")
    wait_for_state(page, "live")
    page.keyboard.press("r")
    wait_for_state(page, "idle")
    page.focus("#hotwords")
    page.keyboard.type("rot?")
    assert page.input_value("#hotwords") == "rot?"
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.focus("#shortcuts")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("r")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_hidden()
    assert page.get_attribute("body", "data-state") == "idle"


def test_every_control_has_a_name_and_captions_are_a_log(deaf: Browser, open_page: OpenPage) -> None:
    page = open_page(deaf)
    tree = page.locator("body").aria_snapshot()
    for role in ("button", "combobox", "textbox", "switch", "link"):
        assert f"- {role}\n" not in tree
        assert f'- {role} "' in tree
    assert page.get_by_role("log", name="Transcript").get_attribute("aria-live") == "polite"
    assert page.get_by_role("meter", name="Input level").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_dark_and_narrow(deaf: Browser, open_page: OpenPage, scheme: str) -> None:
    phone = {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True}
    page = open_page(deaf, color_scheme=scheme, **phone)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    segments = [{"text": "w" * 200, "start": 0, "end": 9, "speaker": "SPK0"}]
    page.route("**/asr", lambda route: route.fulfill(json={"segments": segments, "duration": 9}))
    page.set_input_files("#file", MEETING)
    expect(page.locator("#captions p")).to_have_count(1)
    page.click("summary")
    assert page.evaluate(overflow) == 0
    assert page.evaluate(TOO_SMALL) == []
    paint = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    ink, paper = (brightness(colour) for colour in page.evaluate(paint))
    assert (ink > paper) == (scheme == "dark")
    assert page.get_attribute("#theme", "aria-pressed") == str(scheme == "dark").lower()
    page.keyboard.press("t")
    ink, paper = (brightness(colour) for colour in page.evaluate(paint))
    assert (ink > paper) == (scheme == "light")
    page.reload()
    assert [brightness(colour) for colour in page.evaluate(paint)] == [ink, paper]


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


def test_other_rates_become_16_khz(deaf: Browser, open_page: OpenPage) -> None:
    page = open_page(deaf)
    measure = """async ([rate, hertz]) => {
      const { Resampler } = await import("/web/resample.js");
      const tone = (i, rate) => Math.sin((2 * Math.PI * hertz * i) / rate);
      const resampler = new Resampler(rate, 16000);
      const out = [];
      for (let begin = 0; begin < rate; begin += 128) {
        const block = Float32Array.from({ length: 128 }, (_, i) => tone(begin + i, rate));
        out.push(...resampler.push(block));
      }
      let [cos, sin, power] = [0, 0, 0];
      const middle = out.slice(1600, 14400);
      middle.forEach((value, i) => {
        cos += value * Math.cos((2 * Math.PI * hertz * i) / 16000);
        sin += value * Math.sin((2 * Math.PI * hertz * i) / 16000);
        power += value * value;
      });
      const wanted = (2 * (cos * cos + sin * sin)) / middle.length;
      return [out.length, power / middle.length, (power - wanted) / middle.length];
    }"""
    for rate in (8000, 44_100, 48_000, 96_000):
        length, power, noise = page.evaluate(measure, [rate, 1000])
        assert abs(length - math.ceil(rate / 128) * 128 * 16_000 / rate) <= 64
        assert power == pytest.approx(0.5, rel=1e-3)
        assert noise < 1e-7
    for rate in (44_100, 48_000, 96_000):
        assert page.evaluate(measure, [rate, 9000])[1] < 1e-6
