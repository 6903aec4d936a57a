"""Tandem: two-tier serving of LLM-based speech recognition. This package is what every part imports."""

from __future__ import annotations

__version__ = "0.1.0"
