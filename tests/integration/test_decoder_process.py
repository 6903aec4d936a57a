"""The decoder process: drain on SIGTERM, exit when the engine dies, refusal of bad checkpoints."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import Unavailable
from tandem.launcher import is_ready
from tandem.rpc.status import from_rpc_error
from tests.support.decoding import cases, collect, messages, running_decoder
from tests.support.services import NANO

CASE = "0.0"

TOGETHER = """
import asyncio, sys
from decoder_service.config import parse
from decoder_service.engines.base import GenerationRequest, Prompt, Sampling
from decoder_service.service import load_engine

order = []

class Noting(Prompt):
    def token_ids(self):
        order.append("prompt")
        return Prompt.token_ids(self)

async def main():
    flags = ["--model", sys.argv[1], "--engine", "vllm", "--dtype", "fp32", "--cpu-kv-cache-gib", "1"]
    engine, _ = await load_engine(parse(flags))

    async def other():
        while order.count("prompt") < 5:
            order.append("other")
            await asyncio.sleep(0)

    async def one(number):
        request = GenerationRequest(str(number), Noting(((1, 2, 3),)), Sampling(max_tokens=2))
        async for _ in engine.generate(request):
            pass

    await asyncio.gather(*(one(number) for number in range(5)), other())
    await engine.close()
    print("order:", *order)

if __name__ == "__main__":
    asyncio.run(main())
"""


def children(pid: int) -> list[tuple[int, str]]:
    """Process ids and names of the direct children."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [(int(line.split()[0]), line.split(maxsplit=1)[1]) for line in listed.splitlines()]


def test_sigterm_lets_running_calls_finish() -> None:
    sampling = pb.SamplingParams(max_tokens=400, ignore_eos=True)
    requests = messages(cases()[CASE].parts, sampling=sampling)
    with running_decoder("transformers") as decoder:
        call = decoder.stub.Generate(iter(requests), timeout=60)
        first = next(call)
        os.kill(decoder.tier.process.pid, signal.SIGTERM)
        rest = collect(call)
        assert len(first.token_ids) + len(rest.token_ids) == 400
        assert decoder.tier.process.wait(20) == 0


def test_a_dead_engine_ends_its_calls_and_the_process() -> None:
    """Killing vLLM's core process: UNAVAILABLE for the running call, readiness off, exit status 1."""
    sampling = pb.SamplingParams(max_tokens=3000, ignore_eos=True)
    requests = messages(cases()[CASE].parts, sampling=sampling)
    with running_decoder("vllm") as decoder:
        call = decoder.stub.Generate(iter(requests), timeout=60)
        next(call)
        core = [pid for pid, name in children(decoder.tier.process.pid) if "Engine" in name]
        assert len(core) == 1
        os.kill(core[0], signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert isinstance(from_rpc_error(caught.value), Unavailable)
        assert decoder.tier.process.wait(30) == 1
        assert not is_ready(decoder.address)


def test_prompts_that_come_together_leave_the_loop_to_others_between_them(tmp_path: Path) -> None:
    (tmp_path / "together.py").write_text(TOGETHER)
    command = [sys.executable, str(tmp_path / "together.py"), str(NANO)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    order = next(line.split()[1:] for line in run.stdout.splitlines() if line.startswith("order:"))
    assert order.count("prompt") == 5
    assert ["prompt", "prompt"] not in [order[at : at + 2] for at in range(len(order))]


def test_a_checkpoint_without_language_model_is_refused_with_one_clear_line(tmp_path: Path) -> None:
    for name in ("config.yaml", "model.pt"):
        shutil.copy(NANO / name, tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "decoder_service", "--model", str(tmp_path), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "Qwen3-0.6B holds no config.json" in run.stderr
    assert "Traceback" not in run.stderr
