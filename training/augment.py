"""Acoustic conditions for a padded batch of clips, on any device: speed, room, noise, colour."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SPEEDS = (17, 18, 19, 21, 22, 23)
SPEED_BASE = 20
ROOM_SAMPLES = 6400
WIDTH_STEP = 4000


@dataclass(frozen=True)
class Condition:
    """Which effects a copy of the corpus gets."""

    name: str
    speed: bool = False
    room: bool = False
    noise: bool = False
    colour: bool = False


CONDITIONS = (
    Condition("clean"),
    Condition("speed", speed=True),
    Condition("noise", noise=True, colour=True),
    Condition("room", speed=True, room=True, noise=True, colour=True),
)


def apply(condition: Condition, clips: Tensor, lengths: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """clips [B, S] in [-1, 1], zero past lengths [B], to new clips and lengths."""
    if condition.speed:
        clips, lengths = change_speed(clips, lengths, rng.choice(SPEEDS))
    inside = torch.arange(clips.shape[1], device=clips.device)[None] < lengths[:, None]
    if condition.room:
        clips = reverberate(clips)
    if condition.colour:
        clips = colour(clips)
    if condition.noise:
        clips = add_noise(clips, lengths)
    return clips * inside, lengths


def change_speed(clips: Tensor, lengths: Tensor, twentieths: int) -> tuple[Tensor, Tensor]:
    """Plays clips at twentieths/20 of their speed (pitch moves too), by windowed-sinc interpolation.

    The new width is a multiple of WIDTH_STEP: few sizes, so few FFT plans.
    """
    shared = math.gcd(twentieths, SPEED_BASE)
    step, phases = twentieths // shared, SPEED_BASE // shared
    cut = 0.97 * min(1.0, phases / step)
    width = math.ceil(8 / cut)
    taps = torch.arange(-width, width + step, device=clips.device, dtype=torch.float32)
    at = torch.arange(phases, device=clips.device, dtype=torch.float32)[:, None] * step / phases
    t = ((taps[None] - at) * cut).clamp(-8, 8)
    kernel = torch.sinc(t) * torch.cos(t * math.pi / 16).square() * cut
    out = F.conv1d(F.pad(clips, (width, width + step))[:, None], kernel[:, None], stride=step)
    out = out.transpose(1, 2).reshape(clips.shape[0], -1)
    lengths = lengths * phases // step
    width = -(-clips.shape[1] * phases // step // WIDTH_STEP) * WIDTH_STEP
    return F.pad(out, (0, max(0, width - out.shape[1])))[:, :width], lengths


def reverberate(clips: Tensor) -> Tensor:
    """Convolves each clip with its own decaying-noise room response; level is kept."""
    rows, width = clips.shape
    time = torch.arange(ROOM_SAMPLES, device=clips.device) / 16000
    rt60 = torch.empty(rows, 1, device=clips.device).uniform_(0.1, 0.5)
    tail = torch.randn(rows, ROOM_SAMPLES, device=clips.device) * torch.exp(-6.9 * time / rt60)
    tail[:, : 16 * 5] = 0
    direct_db = torch.empty(rows, 1, device=clips.device).uniform_(0, 14)
    tail = tail / tail.norm(dim=1, keepdim=True) * 10 ** (-direct_db / 20)
    tail[:, 0] = 1.0
    size = 1 << (width + ROOM_SAMPLES - 1).bit_length()
    out = torch.fft.irfft(torch.fft.rfft(clips, size) * torch.fft.rfft(tail, size), size)[:, :width]
    level: Tensor = (_power(clips) / _power(out)).sqrt()
    return torch.as_tensor(out) * level


def colour(clips: Tensor) -> Tensor:
    """A smooth random response of +-8 dB per clip; one clip in three loses its top, as on a telephone."""
    rows, width = clips.shape
    knots = torch.empty(rows, 1, 8, device=clips.device).uniform_(-8, 8)
    bins = width // 2 + 1
    gain = 10 ** (F.interpolate(knots, size=bins, mode="linear", align_corners=True)[:, 0] / 20)
    hertz = torch.linspace(0, 8000, bins, device=clips.device)[None]
    top = torch.empty(rows, 1, device=clips.device).uniform_(3400, 8000)
    top = torch.where(torch.rand(rows, 1, device=clips.device) < 0.33, top, 9000.0)
    gain = gain * torch.sigmoid((top - hertz) / 60)
    out: Tensor = torch.fft.irfft(torch.fft.rfft(clips) * gain, width)
    return out


def add_noise(clips: Tensor, lengths: Tensor) -> Tensor:
    """Coloured noise, or the chatter of three other clips, 4 to 30 dB under the speech."""
    rows, width = clips.shape
    white = torch.fft.rfft(torch.randn_like(clips))
    tilt = torch.empty(rows, 1, device=clips.device).uniform_(0, 2)
    ramp = torch.arange(1, white.shape[1] + 1, device=clips.device)[None] / white.shape[1]
    noise = torch.fft.irfft(white * (ramp + 0.01) ** (-tilt / 2), width)
    chatter = sum(
        clips[torch.randperm(rows, device=clips.device)].roll(s, 1) for s in (0, width // 3, width // 2)
    )
    pick = torch.rand(rows, 1, device=clips.device) < 0.3
    noise = torch.where(pick, chatter + 0.05 * noise * _power(clips).sqrt(), noise)
    snr = torch.empty(rows, 1, device=clips.device).uniform_(4, 30)
    snr = torch.where(pick, snr + 6, snr)
    speech = clips.square().sum(1, keepdim=True) / lengths[:, None]
    return clips + noise * (speech / _power(noise)).sqrt() * 10 ** (-snr / 20)


def _power(clips: Tensor) -> Tensor:
    return clips.square().mean(dim=1, keepdim=True).clamp_min(1e-12)
