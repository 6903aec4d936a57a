"""Kaldi log-mel filterbank in numpy, whole or streaming with identical results.

Parameters of FSMN-VAD's front end: 16 kHz, 25/10 ms frames, Hamming window, no dither, 80 bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
FRAME_LENGTH = 400
FRAME_SHIFT = 160
NUM_MELS = 80
_FFT_SIZE = 512
_PREEMPHASIS = 0.97
_LOW_HZ = 20.0
_LOG_FLOOR = np.float32(1.1920929e-07)
# Kaldi expects 16-bit sample values.
_SCALE = np.float32(32768.0)
# Bounds the working memory of one call, and keeps it in the cache.
_BLOCK_FRAMES = 1024

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
_WINDOW = (0.54 - 0.46 * np.cos(2 * np.pi * np.arange(FRAME_LENGTH) / (FRAME_LENGTH - 1))).astype(np.float32)


def num_frames(num_samples: int) -> int:
    """Frames that fit wholly into `num_samples`."""
    return 0 if num_samples < FRAME_LENGTH else 1 + (num_samples - FRAME_LENGTH) // FRAME_SHIFT


def fbank(samples: FloatArray) -> FloatArray:
    """Log-mel features, float32 [num_frames, 80], of float32 samples [n] in [-1, 1]."""
    total = num_frames(len(samples))
    features = np.empty((total, NUM_MELS), dtype=np.float32)
    for first in range(0, total, _BLOCK_FRAMES):
        last = min(total, first + _BLOCK_FRAMES)
        block = samples[first * FRAME_SHIFT : (last - 1) * FRAME_SHIFT + FRAME_LENGTH]
        features[first:last] = _fbank_block(block)
    return features


def _fbank_block(samples: FloatArray) -> FloatArray:
    samples = np.asarray(samples, dtype=np.float32) * _SCALE
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME_LENGTH)[::FRAME_SHIFT]
    centred = frames - frames.mean(axis=1, keepdims=True)
    emphasised = np.empty_like(centred)
    np.multiply(centred[:, :-1], -_PREEMPHASIS, out=emphasised[:, 1:])
    emphasised[:, 1:] += centred[:, 1:]
    emphasised[:, 0] = (1.0 - _PREEMPHASIS) * centred[:, 0]
    emphasised *= _WINDOW
    spectrum = np.fft.rfft(emphasised, _FFT_SIZE, axis=1).astype(np.complex64, copy=False)
    power = spectrum.real**2 + spectrum.imag**2
    mels: FloatArray = np.matmul(power, _FILTERS, dtype=np.float32)
    np.maximum(mels, _LOG_FLOOR, out=mels)
    return np.log(mels, out=mels)


class StreamingFbank:
    """fbank() over audio that arrives in pieces: the same frames, each as soon as it is complete."""

    def __init__(self) -> None:
        self._rest = np.empty(0, dtype=np.float32)

    def push(self, samples: FloatArray) -> FloatArray:
        """Adds samples [n] and returns the frames that became complete, float32 [m, 80]."""
        audio = np.concatenate([self._rest, np.asarray(samples, dtype=np.float32)])
        features = fbank(audio)
        self._rest = audio[len(features) * FRAME_SHIFT :]
        return features
