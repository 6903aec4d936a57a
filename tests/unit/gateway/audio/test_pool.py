"""Decoding in worker processes: results, limits, crashes, cancellation, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from gateway.audio.pool import AudioPool
from gateway.audio.types import DecodeLimits, DecodeOptions, to_float
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import VadOptions, offline_config, segment
from tandem.errors import InvalidAudio, LimitExceeded, Overloaded
from tandem.waves import to_wav
from tests.support.encode_audio import encode
from tests.support.recordings import recording, recording_path, vad_weights

_SPEECH = recording("english_9s.wav")
_WAV = recording_path("english_9s.wav")
_LONG = np.tile(_SPEECH, 60)


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[AudioPool]:
    async with AudioPool(2, DecodeLimits(max_seconds=1000), spool_dir=tmp_path) as running:
        yield running


async def test_bytes_and_paths(pool: AudioPool, tmp_path: Path) -> None:
    from_bytes, from_path = await asyncio.gather(pool.decode(_WAV.read_bytes()), pool.decode(_WAV))
    np.testing.assert_array_equal(to_float(from_bytes.channel()), _SPEECH)
    np.testing.assert_array_equal(to_float(from_path.channel()), _SPEECH)
    assert from_path.info.codec == "pcm_s16le"
    assert list(tmp_path.iterdir()) == []


async def test_many_at_once_with_channels(pool: AudioPool) -> None:
    stereo = np.stack([_SPEECH, _SPEECH * 0.5], axis=1)
    data = encode(stereo, "flac", "flac")
    results = await asyncio.gather(*(pool.decode(data, DecodeOptions(mix=False)) for _ in range(12)))
    assert {result.samples.shape for result in results} == {(len(_SPEECH), 2)}
    np.testing.assert_array_equal(to_float(results[-1].channel(0)), _SPEECH)


async def test_speech_is_that_of_each_channel_by_itself(tmp_path: Path) -> None:
    dialogue = recording("dialogue_2spk.flac")
    other = np.roll(dialogue, 16000 * 20)
    channels = [(channel * 32768).astype(np.int16) for channel in (dialogue, other)]
    model, config = FsmnVad(vad_weights()), offline_config(VadOptions(max_segment_ms=15_000))
    async with AudioPool(1, spool_dir=tmp_path, vad_model=vad_weights()) as pool:
        data = to_wav(np.stack(channels, axis=1), 16000)
        decoded = await pool.decode(data, DecodeOptions(mix=False), config)
        without = await pool.decode(data, DecodeOptions(mix=False))
    expected = [segment(model, pcm, VadOptions(max_segment_ms=15_000)) for pcm in channels]
    assert [[(start // 16, end // 16) for start, end in found] for found in decoded.speech] == [
        [(part.start_ms, part.end_ms) for part in found] for found in expected
    ]
    assert all(len(found) > 3 for found in expected)
    assert not without.speech


async def test_16_bits_are_kept_as_16_bits_and_finer_recordings_as_they_are(pool: AudioPool) -> None:
    quiet = _SPEECH * np.float32(1e-3)
    coarse = await pool.decode(encode(quiet, "wav", "pcm_s16le"))
    lossy = await pool.decode(encode(_SPEECH, "mp3", "libmp3lame"))
    assert coarse.samples.dtype == lossy.samples.dtype == np.int16
    for codec in ("pcm_s24le", "pcm_f32le"):
        fine = await pool.decode(encode(quiet, "wav", codec))
        assert fine.samples.dtype == np.float32
        np.testing.assert_allclose(fine.channel(), quiet, atol=2**-23)


async def test_large_recordings_do_not_block_the_loop(pool: AudioPool, tmp_path: Path) -> None:
    data = encode(_LONG, "flac", "flac")
    assert len(data) > 1 << 20
    longest, task = 0.0, asyncio.create_task(pool.decode(data))
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    np.testing.assert_array_equal(to_float((await task).channel()), _LONG)
    assert longest < 0.2
    assert list(tmp_path.iterdir()) == []


async def test_errors_are_typed(pool: AudioPool, tmp_path: Path) -> None:
    with pytest.raises(InvalidAudio) as undecodable:
        await pool.decode(b"no audio at all" * 50)
    assert undecodable.value.metadata == {"problem": "UndecodableAudio"}
    with pytest.raises(InvalidAudio, match="empty"):
        await pool.decode(b"")
    with pytest.raises(LimitExceeded) as too_long:
        await pool.decode(encode(np.zeros(16000 * 1001, np.float32), "flac", "flac"))
    assert too_long.value.metadata == {"problem": "AudioTooLong"}
    assert list(tmp_path.iterdir()) == []


async def test_a_crash_fails_one_recording_and_the_worker_is_replaced(pool: AudioPool) -> None:
    before = set(pool.worker_pids)
    task = asyncio.create_task(pool.decode(encode(_LONG, "flac", "flac")))
    await asyncio.sleep(0.15)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(InvalidAudio) as crashed:
        await task
    assert crashed.value.metadata == {"problem": "WorkerCrashed"}
    # The other one died idle: the next recordings must not notice.
    results = await asyncio.gather(*(pool.decode(_WAV) for _ in range(4)))
    assert all(len(result.samples) == len(_SPEECH) for result in results)
    assert len(pool.worker_pids) == 2 and not before & set(pool.worker_pids)


async def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    limits = DecodeLimits(max_decode_seconds=0.1)
    async with AudioPool(1, limits, grace_seconds=0.4, spool_dir=tmp_path) as pool:
        (pid,) = pool.worker_pids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(LimitExceeded) as hung:
            await pool.decode(_WAV)
        assert hung.value.metadata == {"problem": "DecodingTooSlow"}
        assert pid not in pool.worker_pids


async def test_cancelling_gives_the_worker_back(tmp_path: Path) -> None:
    async with AudioPool(1, spool_dir=tmp_path) as pool:
        task = asyncio.create_task(pool.decode(encode(_LONG, "flac", "flac")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(tmp_path.iterdir()) == []
        pids = pool.worker_pids
        assert len((await pool.decode(_WAV)).samples) == len(_SPEECH)
        assert pool.worker_pids == pids


async def test_overload_is_refused_before_any_work(tmp_path: Path) -> None:
    async with AudioPool(1, max_waiting=1, spool_dir=tmp_path) as pool:
        data = encode(_LONG, "flac", "flac")
        admitted = [asyncio.create_task(pool.decode(data)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await pool.decode(_WAV)
        assert refused.value.retry_after is not None
        await asyncio.gather(*admitted)
        assert len((await pool.decode(_WAV)).samples) == len(_SPEECH)


async def test_recordings_that_wait_hold_no_more_memory_than_allowed(tmp_path: Path) -> None:
    data = encode(_LONG, "flac", "flac")
    async with AudioPool(1, max_held_bytes=2 * len(data), spool_dir=tmp_path) as pool:
        admitted = [asyncio.create_task(pool.decode(data)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.decode(_WAV.read_bytes())
        # A file holds no memory.
        assert len((await pool.decode(_WAV)).samples) == len(_SPEECH)
        await asyncio.gather(*admitted)
        assert len((await pool.decode(_WAV.read_bytes())).samples) == len(_SPEECH)


async def test_closing_ends_every_process(tmp_path: Path) -> None:
    async with AudioPool(2, spool_dir=tmp_path) as pool:
        pids = pool.worker_pids
        task = asyncio.create_task(pool.decode(encode(_LONG, "flac", "flac")))
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(tmp_path.iterdir()) == []


async def test_memory_stays_bounded_for_long_recordings(pool: AudioPool) -> None:
    (first, *_) = pool.worker_pids
    decoded = await pool.decode(encode(_LONG, "flac", "flac"))
    assert decoded.samples.base is not None
    for pid in {first, *pool.worker_pids}:
        status = Path(f"/proc/{pid}/status").read_text()
        peak_kib = int(status.split("VmHWM:")[1].split()[0])
        assert peak_kib < 400 * 1024
