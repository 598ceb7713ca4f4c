"""Fuzzers of the protocol layer; see README.md."""
