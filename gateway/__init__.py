"""The CPU tier that clients talk to: audio decoding, VAD, prompts, alignment and text, without torch."""

import os

from tandem.rpc import poller

# Every core has a process or a thread of the gateway's own; matrix products that spread out over all of them
# would only get in the way. Set before numpy is loaded, and inherited by the audio workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
poller.poll_in_completion_queues()
