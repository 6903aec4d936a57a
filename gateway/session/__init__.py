"""Live recognition: one engine for every protocol, described in docs/streaming.md."""
