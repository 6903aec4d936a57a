"""The SDK over services that it starts itself; the guide's snippets with only import and model changed."""

from __future__ import annotations

import gc
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from tandem import AutoModelVLLM, Client, FunASRNanoVLLM, RecognizeOptions
from tandem.asr.v1 import asr_pb2, asr_pb2_grpc
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2, encoder_pb2_grpc
from tandem.errors import InvalidAudio, InvalidRequest, LimitExceeded
from tandem.launcher import LaunchError
from tandem.rpc.status import from_rpc_error
from tests.support.guide import run_snippet
from tests.support.metrics import scrape, value
from tests.support.ports import free_port
from tests.support.processes import children, is_gone
from tests.support.recordings import recording, recording_path
from tests.support.services import NANO

FILES = ["english_9s.wav", "mandarin_6s.wav"]


@pytest.fixture(scope="module")
def metrics_ports() -> dict[str, int]:
    """Of the model's first process of each tier."""
    return {tier: free_port() for tier in ("gateway", "encoder", "decoder")}


@pytest.fixture(scope="module")
def model(metrics_ports: dict[str, int]) -> Iterator[AutoModelVLLM]:
    with pytest.MonkeyPatch.context() as patch:
        for tier, port in metrics_ports.items():
            patch.setenv(f"TANDEM_{tier.upper()}_METRICS_PORT", str(port))
        running = AutoModelVLLM(
            str(NANO),
            engine="transformers",
            dtype="fp32",
            device="cpu",
            max_model_len=1024,
            gateways=2,
            encoders=2,
            decoders=2,
        )
    with running:
        yield running


@pytest.fixture
def direct(model: AutoModelVLLM) -> FunASRNanoVLLM:
    return FunASRNanoVLLM.from_pretrained(server=model.server)


@pytest.fixture
def paths() -> list[str]:
    return [str(recording_path(name)) for name in FILES]


@pytest.fixture
def folder(tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the guide's reader."""
    for name, path in zip(("audio1.wav", "audio2.wav", "audio.wav"), [*paths, paths[0]], strict=True):
        shutil.copy(path, tmp_path / name)
    (tmp_path / "wav.scp").write_text("first audio1.wav\nsecond audio2.wav\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def test_guide_universal_interface(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_snippet("sdk_auto.py", folder, NANO)
    results = names["results"]
    assert [result["key"] for result in results] == ["audio1", "audio2"]
    assert capsys.readouterr().out == "".join(f"[{r['key']}] {r['text']}\n" for r in results)
    assert any(result["text"] for result in results)
    names["model"].close()


def test_guide_direct_interface(folder: Path) -> None:
    names = run_snippet("sdk_direct.py", folder, NANO)
    assert [result["key"] for result in names["results"]] == ["first", "second"]
    names["engine"].close()


def test_guide_silence_schedule(folder: Path, model: AutoModelVLLM) -> None:
    run_snippet("sdk_schedule.py", folder, NANO, {"model": model})


def test_results_are_those_of_the_typed_client(model: AutoModelVLLM, paths: list[str]) -> None:
    results = model.generate(paths, sentence_info=True)
    with Client(model.server) as client:
        for path, result in zip(paths, results, strict=True):
            transcript = client.recognize(path)
            words = [word for segment in transcript.segments for word in segment.words]
            assert result["text"] == transcript.text
            assert [t["token"] for t in result.get("timestamps", [])] == [word.text for word in words]
            assert [t["start_time"] for t in result.get("timestamps", [])] == pytest.approx(
                [word.start for word in words], abs=6e-4
            )
            assert [s["text"] for s in result["sentence_info"]] == [s.text for s in transcript.segments]


def test_every_kind_of_input_gives_the_same_text(model: AutoModelVLLM, tmp_path: Path) -> None:
    path, samples = recording_path(FILES[0]), recording(FILES[0])
    (tmp_path / "in.jsonl").write_text(f'{{"key": "k", "source": "{path}"}}\n')
    pcm = (samples * 32768).astype(np.int16)
    inputs = [path, path.read_bytes(), samples, (samples, 16000), pcm, torch.from_numpy(samples)]
    results = model.generate([*inputs, str(tmp_path / "in.jsonl")])
    assert {result["text"] for result in results} == {results[0]["text"]}
    assert [r["key"] for r in results] == ["english_9s", *(f"sample_{i}" for i in range(1, 6)), "k"]
    assert model.generate(samples) == [{**results[2], "key": "sample_0"}]


def test_an_open_file_is_one_recording(model: AutoModelVLLM, paths: list[str]) -> None:
    (expected,) = model.generate(paths[0])
    with open(paths[0], "rb") as file:
        assert model.generate(file) == [expected]
    memory = io.BytesIO(Path(paths[0]).read_bytes())
    assert model.generate(memory) == [{**expected, "key": "sample_0"}]


def test_silence_has_no_timestamps_as_in_the_published_engine(model: AutoModelVLLM) -> None:
    (result,) = model.generate(np.zeros(32_000, np.float32))
    assert result == {"key": "sample_0", "text": ""}


def test_an_option_that_can_never_work_is_named(model: AutoModelVLLM, paths: list[str]) -> None:
    with pytest.raises(InvalidRequest, match=r"config\.max_new_tokens: must be between 1 and"):
        model.generate(paths[0], max_new_tokens=2**32)
    with Client(model.server) as client, pytest.raises(InvalidRequest, match=r"config\.max_new_tokens"):
        client.recognize(paths[0], RecognizeOptions(max_new_tokens=2**32))


def test_the_direct_interface_decodes_one_segment_where_it_fits(direct: FunASRNanoVLLM) -> None:
    (result,) = direct.generate(recording_path(FILES[0]), max_new_tokens=20)
    with Client(direct.server) as client:
        whole = client.recognize(recording_path(FILES[0]), RecognizeOptions(vad=False, max_new_tokens=20))
    assert len(whole.segments) == 1
    assert result["text"] == whole.text


def test_the_direct_interface_cuts_what_is_too_long(model: AutoModelVLLM, direct: FunASRNanoVLLM) -> None:
    long = recording_path("dialogue_2spk.flac")
    with pytest.raises(LimitExceeded, match=r"^.*dialogue_2spk\.flac: "):
        model.generate(long, vad=False, max_new_tokens=8)
    (cut,) = direct.generate(long, max_new_tokens=8)
    assert cut["text"] == model.generate(long, max_new_tokens=8)[0]["text"]


def test_a_bad_file_is_named_or_skipped(model: AutoModelVLLM, paths: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio" * 100)
    files = [paths[0], str(bad), str(tmp_path / "missing.wav"), paths[1]]
    with pytest.raises(InvalidAudio, match=r"bad\.wav: "):
        model.generate(files)
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        model.generate(files[2:])
    kept = model.generate(files, on_error="skip")
    assert [result["key"] for result in kept] == ["english_9s", "mandarin_6s"]


def recognized(metrics_port: int) -> float:
    """Recordings that the gateway has answered, well or not."""
    return sum(
        count
        for (name, labels), count in scrape(metrics_port).items()
        if name == "tandem_requests_total" and ("method", "Recognize") in labels
    )


def test_gateways_share_the_recordings_of_a_call(
    model: AutoModelVLLM, metrics_ports: dict[str, int], paths: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio" * 100)
    port = metrics_ports["gateway"]
    before = recognized(port)
    results = model.generate([*paths, str(bad), *paths], max_new_tokens=8, on_error="skip")
    assert 0 < recognized(port) - before < 5
    keys = ["english_9s", "mandarin_6s", "english_9s_1", "mandarin_6s_1"]
    assert [result["key"] for result in results] == keys
    assert len(model.servers) == 2
    for address in model.servers:
        with Client(address) as client:
            texts = [client.recognize(path, RecognizeOptions(max_new_tokens=8)).text for path in paths]
        assert [result["text"] for result in results] == texts * 2


def test_all_encoders_take_requests(model: AutoModelVLLM, metrics_ports: dict[str, int]) -> None:
    samples = scrape(metrics_ports["gateway"])
    assert [up for (name, _), up in samples.items() if name == "tandem_gateway_encoder_up"] == [1, 1]


def test_each_encoder_has_its_decoder(model: AutoModelVLLM, metrics_ports: dict[str, int]) -> None:
    def answered() -> float:
        """By the first decoder."""
        samples = scrape(metrics_ports["decoder"])
        return value(samples, "tandem_decoder_stage_seconds_count", stage="generate")

    for encoder, more in (("encoder", 1), ("encoder-1", 0)):
        before = answered()
        with grpc.insecure_channel(model.servers[0].replace("gateway", encoder)) as channel:
            config = encoder_pb2.TranscribeConfig(
                audio=encoder_pb2.AudioConfig(format=encoder_pb2.SAMPLE_FORMAT_S16LE),
                prefix_token_ids=[1],
                suffix_token_ids=[2],
                sampling=decoder_pb2.SamplingParams(max_tokens=2, ignore_eos=True),
                whole_audio=bytes(32_000),
                final_only=True,
            )
            stub = encoder_pb2_grpc.EncoderServiceStub(channel)
            answers = list(stub.Transcribe(iter([encoder_pb2.TranscribeRequest(config=config)]), timeout=60))
        assert len(answers[-1].answer.tokens.token_ids) == 2
        assert answered() - before == more


@pytest.mark.parametrize("call", ["generate", "model", "direct"])
def test_unknown_arguments_are_named(model: AutoModelVLLM, call: str) -> None:
    with pytest.raises(TypeError, match="beam_size"):
        if call == "generate":
            model.generate("a.wav", beam_size=4)  # type: ignore[call-arg]
        elif call == "model":
            AutoModelVLLM(str(NANO), beam_size=4)  # type: ignore[call-arg]
        else:
            FunASRNanoVLLM.from_pretrained(str(NANO), beam_size=4)  # type: ignore[call-arg]


def start_elsewhere() -> AutoModelVLLM:
    """A model that a thread made which has ended since."""
    made: list[AutoModelVLLM] = []
    thread = threading.Thread(
        target=lambda: made.append(AutoModelVLLM(str(NANO), engine="transformers", device="cpu"))
    )
    thread.start()
    thread.join()
    return made[0]


def test_services_outlive_the_thread_that_asked_and_end_with_the_object(paths: list[str]) -> None:
    before = children(os.getpid())
    model = start_elsewhere()
    own = children(os.getpid()) - before
    assert len(own) >= 3
    assert model.generate(paths[0], max_new_tokens=4)
    del model
    gc.collect()
    assert all(is_gone(pid) for pid in own)


SCRIPT = f"""
import sys
from pathlib import Path
from tests.support.guide import run_snippet
from tests.support.processes import children
from tandem import AutoModelVLLM
import os
model = AutoModelVLLM({str(NANO)!r}, engine="transformers", device="cpu")
print(*children(os.getpid()))
"""


def test_services_end_with_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 3
    assert all(is_gone(pid) for pid in pids)


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    before = children(os.getpid())
    with pytest.raises(LaunchError, match="exited with code"):
        AutoModelVLLM(str(tmp_path), engine="transformers", device="cpu")
    assert children(os.getpid()) == before


def test_a_closed_model_says_so() -> None:
    model = AutoModelVLLM(server="localhost:1")
    model.close()
    with pytest.raises(ValueError, match="closed"):
        model.generate("a.wav")


def test_own_services_read_files_themselves_and_say_what_is_wrong_with_a_path(
    model: AutoModelVLLM, paths: list[str], tmp_path: Path
) -> None:
    by_path, by_bytes = (model.generate(item)[0] for item in (paths[0], Path(paths[0]).read_bytes()))
    assert {**by_path, "key": ""} == {**by_bytes, "key": ""}
    assert by_path["text"]
    with grpc.insecure_channel(model.server) as channel:
        stub = asr_pb2_grpc.AsrServiceStub(channel)
        by_name = stub.Recognize(asr_pb2.RecognizeRequest(audio_path=paths[0]), timeout=60)
        assert by_name.text == by_path["text"]
        for bad in (
            {"audio_path": os.path.relpath(paths[0])},
            {"audio_path": str(tmp_path)},
            {"audio_path": str(tmp_path / "missing.wav")},
            {"audio_path": paths[0], "audio": b"RIFF"},
        ):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Recognize(asr_pb2.RecognizeRequest(**bad), timeout=60)
            error = from_rpc_error(refused.value)
            assert isinstance(error, InvalidRequest) and error.violations[0].field == "audio_path"
