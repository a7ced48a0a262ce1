"""`python -m relay_gateway_bench`: the same as `relay-gateway bench`."""

import argparse
import sys

from .cli import add_arguments, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="relay_gateway_bench", description=__package__)
    add_arguments(parser)
    return run(parser.parse_args())


sys.exit(main())
