"""Coverage-guided fuzzing of the encoder: `python fuzz/fuzz_commands.py [libFuzzer options]`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["tmuxcc"]):
    from fuzz.invariants import check_commands, seeds


def main() -> None:
    """Start from pieces of the recordings, and keep what is found in build/."""
    warnings.simplefilter("ignore", DeprecationWarning)
    corpus = ROOT / "build" / "fuzz" / "commands"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(b" " + seed[:400])
    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[1:]], check_commands)
    atheris.Fuzz()


main()
