"""Everything between token ids and the text a client reads."""
