"""Every format that clients send, every limit, and files made to break decoders."""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pytest

from gateway.audio.decode import decode, open_recording
from gateway.audio.errors import (
    AudioError,
    AudioTooLarge,
    AudioTooLong,
    DecodingTooSlow,
    EmptyAudio,
    UndecodableAudio,
)
from gateway.audio.g711 import decode_alaw, decode_mulaw
from gateway.audio.types import DecodeLimits, DecodeOptions, RawEncoding, RawFormat
from tests.support.encode_audio import encode
from tests.support.recordings import recording, recording_path

_SPEECH = recording("english_9s.wav")
_STEREO = np.stack([_SPEECH, _SPEECH[::-1]], axis=1)


def _similarity(actual: np.ndarray, expected: np.ndarray) -> float:
    """Correlation at lag zero: a shift of a few samples already lowers it."""
    length = min(len(actual), len(expected))
    return float(np.corrcoef(actual[:length], expected[:length])[0, 1])


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 44100),
        ("wav", "pcm_f32le", 48000),
        ("wav", "pcm_s24le", 96000),
        ("wav", "pcm_u8", 16000),
        ("wav", "pcm_alaw", 8000),
        ("wav", "pcm_mulaw", 8000),
        ("wav", "adpcm_ima_wav", 16000),
        ("mp3", "libmp3lame", 44100),
        ("flac", "flac", 22050),
        ("ogg", "libopus", 48000),
        ("opus", "libopus", 48000),
        ("ipod", "aac", 44100),
        ("mp4", "aac", 48000),
        ("webm", "libopus", 48000),
        ("matroska", "flac", 16000),
        ("aiff", "pcm_s16be", 16000),
        ("au", "pcm_mulaw", 8000),
    ],
)
def test_formats(container: str, codec: str, rate: int) -> None:
    decoded = decode(encode(_SPEECH, container, codec, rate))
    assert decoded.info.sample_rate == rate and decoded.info.channels == 1
    assert decoded.samples.dtype == np.float32 and decoded.samples.shape[1] == 1
    assert abs(len(decoded.samples) - len(_SPEECH)) < 1024
    assert _similarity(decoded.channel(), _SPEECH) > 0.995


def test_vorbis() -> None:
    both = np.stack([_SPEECH, _SPEECH], axis=1)
    data = encode(both, "ogg", "vorbis", 44100, {"strict": "experimental"})
    assert _similarity(decode(data).channel(), _SPEECH) > 0.99


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("wav", "pcm_s16le"), ("au", "pcm_s16be")]
)
def test_lossless_16khz_is_exact(container: str, codec: str) -> None:
    decoded = decode(encode(_SPEECH, container, codec))
    np.testing.assert_array_equal(decoded.channel(), _SPEECH)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s32le"])
def test_channels_are_mixed_or_kept(codec: str) -> None:
    data = encode(_STEREO, "wav", codec)
    np.testing.assert_allclose(decode(data).channel(), _STEREO.mean(axis=1), atol=1e-4)
    kept = decode(data, DecodeOptions(mix=False))
    assert kept.num_channels == kept.info.channels == 2
    np.testing.assert_allclose(kept.samples, _STEREO, atol=1e-4)


def test_six_channels() -> None:
    six = np.stack([_SPEECH * gain for gain in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)], axis=1)
    data = encode(six, "wav", "pcm_s24le", 48000)
    assert _similarity(decode(data).channel(), _SPEECH) > 0.999
    np.testing.assert_allclose(decode(data).channel().std(), 0.5 * _SPEECH.std(), rtol=0.02)
    assert decode(data, DecodeOptions(mix=False)).num_channels == 6


@pytest.mark.parametrize("encoding", [RawEncoding.MULAW, RawEncoding.ALAW])
def test_headerless_telephony(encoding: RawEncoding) -> None:
    raw = encode(_SPEECH, encoding.value, f"pcm_{encoding.value}", 8000)
    decoded = decode(raw, DecodeOptions(raw=RawFormat(encoding)))
    assert len(decoded.samples) == len(_SPEECH)
    assert _similarity(decoded.channel(), _SPEECH) > 0.995


def test_headerless_stereo_pcm() -> None:
    raw = (_STEREO * 32768).astype("<i2").tobytes()
    options = DecodeOptions(mix=False, raw=RawFormat(RawEncoding.S16LE, 16000, 2))
    np.testing.assert_array_equal(decode(raw, options).samples, _STEREO)


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_g711_tables_equal_the_decoder(encoding: str) -> None:
    codes = bytes(range(256))
    raw = RawFormat(RawEncoding(encoding), sample_rate=16000)
    expected = decode(codes, DecodeOptions(raw=raw)).channel()
    actual = {"mulaw": decode_mulaw, "alaw": decode_alaw}[encoding](codes)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
def test_wav_that_was_streamed_without_a_length(length: int) -> None:
    data = bytearray(recording_path("english_9s.wav").read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, length)
    np.testing.assert_array_equal(decode(bytes(data)).channel(), _SPEECH)


def test_wav_with_extensible_header_and_other_chunks() -> None:
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    pcm = (_SPEECH * 32768).astype("<i2").tobytes()
    body = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16000, 32000, 2, 16, 22, 16, 4) + guid
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", len(body)) + body
    chunks += b"data" + struct.pack("<I", len(pcm)) + pcm
    decoded = decode(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    np.testing.assert_array_equal(decoded.channel(), _SPEECH)


def test_truncated_files_give_what_they_hold() -> None:
    wav = recording_path("english_9s.wav").read_bytes()
    np.testing.assert_array_equal(decode(wav[: 44 + 20001]).channel(), _SPEECH[:10000])
    mp3 = encode(_SPEECH, "mp3", "libmp3lame", 44100)
    assert 3.5 < decode(mp3[: len(mp3) // 2]).seconds < 5.5


@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("mp3", "libmp3lame")])
@pytest.mark.parametrize("filler", [0, 255])
def test_damage_in_the_middle_is_survived_and_counted(container: str, codec: str, filler: int) -> None:
    data = bytearray(encode(_SPEECH, container, codec))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes([filler]) * 2000
    decoded = decode(bytes(data))
    assert decoded.seconds > 7
    assert decoded.info.damaged_packets > 0


def test_not_a_number_never_reaches_the_networks() -> None:
    samples = _SPEECH.copy()
    samples[1000], samples[2000] = np.nan, np.inf
    assert np.isfinite(decode(encode(samples, "wav", "pcm_f32le")).samples).all()


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (DecodeLimits(max_bytes=1000), AudioTooLarge),
        (DecodeLimits(max_seconds=5), AudioTooLong),
        (DecodeLimits(max_samples=100_000), AudioTooLarge),
        (DecodeLimits(max_channels=1), AudioTooLarge),
    ],
)
@pytest.mark.parametrize("container", ["wav", "flac"])
def test_limits(container: str, limits: DecodeLimits, error: type[AudioError]) -> None:
    data = encode(_STEREO, container, {"wav": "pcm_s16le", "flac": "flac"}[container])
    with pytest.raises(error):
        decode(data, limits=limits)


def test_limits_stop_decoding_early() -> None:
    # Digital silence compresses to nearly nothing.
    bomb = encode(np.zeros(16000 * 36, dtype=np.float32), "flac", "flac")
    consumed = 0
    with pytest.raises(AudioTooLong):
        for block in open_recording(io.BytesIO(bomb), DecodeOptions(), DecodeLimits(max_seconds=5)):
            consumed += len(block)
    assert consumed <= 5 * 16000


def test_time_limit() -> None:
    with pytest.raises(DecodingTooSlow):
        decode(encode(_SPEECH, "flac", "flac"), limits=DecodeLimits(max_decode_seconds=0))


@pytest.mark.parametrize("data", [b"", recording_path("english_9s.wav").read_bytes()[:44]])
def test_empty(data: bytes) -> None:
    with pytest.raises(EmptyAudio):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is text" * 100,
        bytes(5000),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"RIFF\x24\x00\x00\x00WAVE",
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
    ],
    ids=["text", "zeros", "playlist", "concat", "wav header only", "image"],
)
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(UndecodableAudio) as refused:
        decode(data)
    assert "BytesIO" not in str(refused.value)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "adpcm_ima_wav"), ("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus"), ("ipod", "aac")],
)
def test_random_damage_ends_in_samples_or_a_typed_error(container: str, codec: str) -> None:
    original = encode(_SPEECH[:32000], container, codec, 48000 if codec == "libopus" else 16000)
    random = np.random.default_rng(7)
    outcomes = set()
    for _ in range(60):
        data = np.frombuffer(original, dtype=np.uint8).copy()
        places = random.integers(0, len(data), size=int(random.integers(1, 200)))
        data[places] = random.integers(0, 256, size=len(places))
        try:
            decoded = decode(data.tobytes(), limits=DecodeLimits(max_seconds=600))
            assert np.isfinite(decoded.samples).all()
            outcomes.add("samples")
        except AudioError:
            outcomes.add("error")
    assert "samples" in outcomes


def test_wav_at_16_khz_needs_no_pyav() -> None:
    script = f"""
import sys
sys.modules["av"] = None
from gateway.audio.decode import decode
import gateway.api.streaming, gateway.audio.worker
print(len(decode(open({str(recording_path("english_9s.wav"))!r}, "rb").read()).samples))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(found.stdout) == len(_SPEECH)
