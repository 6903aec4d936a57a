"""The CPU tier that clients talk to: audio decoding, VAD, prompts, alignment and text, without torch."""

from gateway.blas import configure

configure()
