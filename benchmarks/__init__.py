"""Push beside polling, and both beside the floor; `python -m benchmarks --help`, `README.md`."""
