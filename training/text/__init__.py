"""Sentences for the demo model: readers of freely licensed text, a grammar of our own, and the cleaner both share."""
