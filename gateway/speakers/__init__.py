"""Who speaks when: from speaker embeddings of windows to turns and labelled segments. No torch here."""
