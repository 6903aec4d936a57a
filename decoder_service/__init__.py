"""The language model tier: token ids and audio embeddings in, tokens out."""

from tandem.rpc import poller

poller.poll_in_completion_queues()
