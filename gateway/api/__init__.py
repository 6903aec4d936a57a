"""The protocols that clients speak, one module each."""
