"""Recordings in any container to 16 kHz samples, decoded in worker processes."""
