"""Encoder tier: 16 kHz audio in, LLM-space audio embeddings and CTC posteriors out."""

import os

from tandem.rpc import poller

# numpy computes only targets here: small products, after which its threads would spin on every core
# for milliseconds. Read when numpy is imported; what the operator has set stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
poller.poll_in_completion_queues()
