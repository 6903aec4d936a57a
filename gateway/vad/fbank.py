"""Kaldi log-mel filterbank in numpy, for whole recordings or for streams that go on.

Parameters of FSMN-VAD's front end: 16 kHz, 25/10 ms frames, Hamming window, no dither, 80 bins.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gateway.vad.windows import windows

SAMPLE_RATE = 16000
FRAME_LENGTH = 400
FRAME_SHIFT = 160
NUM_MELS = 80
_FFT_SIZE = 512
_PREEMPHASIS = 0.97
_LOW_HZ = 20.0
_LOG_FLOOR = np.float32(1.1920929e-07)
# Kaldi expects 16-bit sample values.
_SCALE = 32768.0
# Bounds the working memory of one call, and keeps it in the cache.
_BLOCK_FRAMES = 512
# Frames begin and end at multiples of this, so their means come from shared sums.
_PIECE = 80

FloatArray = NDArray[np.float32]


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hertz / 700.0)


def _mel_filters() -> FloatArray:
    """Triangles in the mel domain, float32 [257, 80]; the Nyquist bin has no weight."""
    low, high = _mel(np.array([_LOW_HZ, SAMPLE_RATE / 2])).tolist()
    edges = np.linspace(low, high, NUM_MELS + 2)
    bins = _mel(np.arange(_FFT_SIZE // 2, dtype=np.float64) * (SAMPLE_RATE / _FFT_SIZE))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return np.vstack([weights, np.zeros(NUM_MELS)]).astype(np.float32)


_FILTERS = _mel_filters()
_HAMMING = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1))
_WINDOW = (_SCALE * _HAMMING).astype(np.float32)
_PIECE_MEAN = np.full(_PIECE, 1 / _PIECE, dtype=np.float32)


def num_frames(num_samples: int) -> int:
    """Frames that fit wholly into `num_samples`."""
    return 0 if num_samples < FRAME_LENGTH else 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT


def fbank(samples: FloatArray) -> FloatArray:
    """Log-mel features, float32 [m, 80], of float32 samples [n] in [-1, 1]; [streams, m, 80] of [streams, n].

    Of a stream that goes on, the next frames begin at sample m * FRAME_SHIFT.
    """
    streams = np.atleast_2d(np.asarray(samples, dtype=np.float32))
    total = num_frames(streams.shape[1])
    features = np.empty((len(streams), total, NUM_MELS), dtype=np.float32)
    block = max(1, _BLOCK_FRAMES // max(1, len(streams)))
    for first in range(0, total, block):
        last = min(total, first + block)
        heard = streams[:, first * FRAME_SHIFT : (last - 1) * FRAME_SHIFT + FRAME_LENGTH]
        features[:, first:last] = _log_mel(_windowed(heard))
    return features if samples.ndim > 1 else features[0]


def _windowed(samples: FloatArray) -> FloatArray:
    """Frames without their mean, emphasised, in the window: [n, m, 400] of samples [n, s].

    Emphasis comes before framing, which does it once for each sample; then the mean goes, of which emphasis
    has left a share. Emphasis takes most of a low tone away, so its rounding counts: it is done in float64.
    """
    left = np.float32(1 - _PREEMPHASIS)
    exact = samples.astype(np.float64)
    emphasised = np.zeros_like(samples)
    np.subtract(exact[:, 1:], _PREEMPHASIS * exact[:, :-1], out=emphasised[:, 1:], casting="same_kind")
    pieces = samples.reshape(len(samples), -1, _PIECE) @ _PIECE_MEAN
    of_frames = windows(pieces, FRAME_LENGTH // _PIECE, FRAME_SHIFT // _PIECE)
    means = left * of_frames.mean(axis=2, keepdims=True)
    frames: FloatArray = windows(emphasised, FRAME_LENGTH, FRAME_SHIFT) - means
    # The first sample of a frame has none before it.
    firsts = samples[:, : frames.shape[1] * FRAME_SHIFT : FRAME_SHIFT]
    frames[:, :, 0] = left * firsts - means[:, :, 0]
    frames *= _WINDOW
    return frames


def _log_mel(frames: FloatArray) -> FloatArray:
    """float32 [n, m, 80] of frames [n, m, 400]."""
    spectrum = scipy.fft.rfft(frames, _FFT_SIZE)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    mels: FloatArray = power @ _FILTERS
    np.maximum(mels, _LOG_FLOOR, out=mels)
    return np.log(mels, out=mels)
