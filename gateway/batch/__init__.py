"""Long-running recognition of many recordings: a bounded spool on disk, and workers that empty it."""
