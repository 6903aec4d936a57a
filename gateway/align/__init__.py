"""When each word was said: CTC forced alignment of the final text to the encoder's posteriors."""
