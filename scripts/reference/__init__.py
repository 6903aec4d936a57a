"""Parts of the reference in docs/ that are made from the code; see scripts/generate_docs.py."""
