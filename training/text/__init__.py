"""Sentences for the demo model: readers of freely licensed text, a grammar, and the cleaner both share."""
