"""The networks of the encoder tier, one per file, with the parameter names of the published checkpoints."""
