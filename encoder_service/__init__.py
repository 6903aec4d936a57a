"""Encoder tier: 16 kHz audio in, LLM-space audio embeddings and CTC posteriors out."""
