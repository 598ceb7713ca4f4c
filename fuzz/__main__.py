"""The invariants under a seeded mutator: `python -m fuzz --seconds 60 [--seed N]`."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable

from .invariants import TOKENS, check_commands, check_parser, seeds


def mutate(generator: random.Random, corpus: list[bytes]) -> bytes:
    """A piece of a seed with some damage."""
    seed = generator.choice(corpus)
    start = generator.randrange(len(seed) + 1)
    data = bytearray(seed[start : start + generator.choice([40, 200, 1000, 4000])])
    for _ in range(generator.choice([0, 1, 2, 5, 20])):
        at = generator.randrange(len(data) + 1)
        size = generator.choice([1, 2, 8, 40])
        match generator.randrange(6):
            case 0:
                del data[at : at + size]
            case 1:
                data[at:at] = data[at : at + size]
            case 2:
                data[at : at + 1] = generator.randbytes(1)
            case 3:
                other = generator.choice(corpus)
                begin = generator.randrange(len(other) + 1)
                data[at:at] = other[begin : begin + size]
            case _:
                data[at:at] = generator.choice(TOKENS)
    return generator.randbytes(4) + bytes(data)


def run(check: Callable[[bytes], None], seed: int, seconds: float) -> int:
    """Run one check for a while; the number of inputs that were tried."""
    generator = random.Random(seed)
    corpus = [data for data in seeds() if data]
    deadline = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < deadline:
        data = mutate(generator, corpus)
        tried += 1
        try:
            check(data)
        except Exception:
            traceback.print_exc()
            print(f"{check.__name__} failed at input {tried} of seed {seed}:\n{data!r}")
            sys.exit(1)
    return tried


def main() -> None:
    """Run every check for its share of the time."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    # Escapes that tmux never writes make Python's codec warn.
    warnings.simplefilter("ignore", DeprecationWarning)
    for check, share in ((check_parser, 0.7), (check_commands, 0.3)):
        tried = run(check, seed, options.seconds * share)
        print(f"{check.__name__}: {tried} inputs, seed {seed}: nothing found")


main()
