"""CTC's text as a draft, through encoder and decoder processes: the same tokens, in fewer steps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import soundfile

from gateway.backends.encoder import EncoderBackend
from gateway.backends.segment_call import SegmentRequest
from gateway.model import fetch_model
from gateway.text.prompt import PromptOptions
from tandem.launcher import Stack
from tandem.local import demo_directory
from tests.support.metrics import scrape, total, value
from tests.support.ports import free_port
from tests.support.services import stack

MEETING = Path(__file__).parents[2] / "examples" / "meeting.flac"
METRICS = free_port()


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def services(request: pytest.FixtureRequest) -> Iterator[Stack]:
    decoder = ["--dtype", "fp32", "--speculative-tokens", "7", "--log-probs", "--metrics-port", str(METRICS)]
    with stack(demo_directory(), request.param, decoder, encoder_args=["--drafts"]) as running:
        yield running


async def transcribe_turns(address: str, *, ctc: bool) -> list[tuple[int, ...]]:
    """Tokens of each turn of the meeting, all at once; without CTC there is nothing to make a draft of."""
    turns = json.loads(MEETING.with_suffix(".json").read_text(encoding="utf-8"))["turns"]
    samples, rate = soundfile.read(MEETING, dtype="float32")
    encoder = EncoderBackend(address)
    try:
        prompt = (await fetch_model(encoder)).prompts.build(PromptOptions())
        requests: Sequence[SegmentRequest] = [
            SegmentRequest(samples[int(turn["start"] * rate) : int(turn["end"] * rate)], prompt, 200, f"{n}")
            for n, turn in enumerate(turns)
        ]
        results = await asyncio.gather(*(encoder.transcribe(request, ctc=ctc) for request in requests))
        return [result.token_ids for result in results]
    finally:
        await encoder.close()


async def test_answers_with_a_draft_equal_those_without(services: Stack) -> None:
    address = services.config.addresses.encoder
    plain = await transcribe_turns(address, ctc=False)
    before = scrape(METRICS)
    assert value(before, "tandem_decoder_draft_tokens_total") == 0
    assert await transcribe_turns(address, ctc=True) == plain
    after = scrape(METRICS)
    # Segments that were encoded together went to the decoder together.
    together, messages = (
        value(after, f"tandem_decoder_prompts_together_{part}") for part in ("sum", "count")
    )
    assert together > messages > 0
    accepted = value(after, "tandem_decoder_accepted_draft_tokens_total")
    assert accepted <= value(after, "tandem_decoder_draft_tokens_total")
    # vLLM does not count tokens itself unless that is asked for.
    assert total(after, "vllm:generation_tokens_total") == 0
    # The demo model's two branches agree on most of this recording.
    assert accepted > sum(map(len, plain)) / 2
