"""Coverage-guided fuzzing of the parser: `python fuzz/fuzz_parser.py [libFuzzer options]`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["tmuxcc"]):
    from fuzz.invariants import check_parser, seeds


def main() -> None:
    """Start from the recorded streams, and keep what is found in build/."""
    warnings.simplefilter("ignore", DeprecationWarning)
    corpus = ROOT / "build" / "fuzz" / "parser"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        for mode in range(4):
            path = corpus / f"seed-{number}-{mode}"
            path.write_bytes(bytes([mode, 40, 6, 128]) + seed)
    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[1:]], check_parser)
    atheris.Fuzz()


main()
