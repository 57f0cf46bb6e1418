"""Fuzz the decoder and whole nodes for as long as one likes.

    scripts/fuzz_decode.py [--seconds 600] [--seed N] [--only decode|node]

Prints a seed before what it does with it, so that a failure is run again with --seed.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pastryd.wire.codec import encode
from tests.fuzz.check import check_bytes
from tests.fuzz.generate import Generator
from tests.fuzz.ring import FuzzedRing

ROUND = 20_000


def fuzz_decoder(seed: int) -> int:
    """Decode damaged messages; return how many of them still were messages."""
    generator = Generator(Random(seed))
    good = 0
    for _ in range(ROUND):
        message = generator.message()
        generator.learn(message)
        good += check_bytes(generator.mutate(encode(message)))
    return good


def fuzz_node(seed: int) -> int:
    """Run a ring through a storm; every tenth must work afterwards."""
    ring = FuzzedRing(seed)
    ring.run(3_000)
    ring.check_bounds(6_000)
    if seed % 10 == 0:
        ring.check_still_works()
    return ring.steps


def main() -> None:
    """Go from seed to seed until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only", choices=("decode", "node"))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    first = options.seed if options.seed is not None else Random().getrandbits(31)
    for seed in itertools.count(first):
        for what, fuzz in (("decode", fuzz_decoder), ("node", fuzz_node)):
            if options.only in (None, what):
                print(what, "seed", seed, end=" ", flush=True)
                print(fuzz(seed), flush=True)
        if time.monotonic() > end or options.seed is not None:
            return


if __name__ == "__main__":
    main()
