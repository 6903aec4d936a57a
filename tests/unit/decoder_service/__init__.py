"""Tests of the decoder tier."""
