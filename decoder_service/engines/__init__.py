"""Inference engines behind one interface: vLLM and transformers."""
