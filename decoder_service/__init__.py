"""The language model tier: token ids and audio embeddings in, tokens out."""
