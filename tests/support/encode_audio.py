"""Encodes test recordings to the containers and codecs that clients send."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt


def encode(
    samples: npt.NDArray[np.float32],
    container: str,
    codec: str,
    rate: int = 16000,
    options: dict[str, str] | None = None,
) -> bytes:
    """Samples, float32 [n] or [n, channels] at 16 kHz, as a file of `rate`."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    planes = np.ascontiguousarray(samples.reshape(-1, channels).T, dtype=np.float32)
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels}c")
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate = 16000
    frame.pts, frame.time_base = 0, Fraction(1, 16000)
    file = io.BytesIO()
    with av.open(file, mode="w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout, options=options or {})
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.time_base = Fraction(1, rate)
        assert stream.codec_context.format is not None
        # Encoders with frames of fixed length take nothing longer.
        frame_size = stream.codec_context.frame_size or 4096
        resampler = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()
