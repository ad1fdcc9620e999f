"""`python -m sslrob_mini.pretrain`: build the pool, then pretrain a backbone on it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sslrob.errors import SslrobError
from sslrob_mini.pretrain.table import ALL


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0, or 2 with the error told on stderr."""
    options = _parser().parse_args(arguments)
    try:
        import torch

        from sslrob_mini.pretrain import pool

        if options.command == "pool":
            print(pool.write(pool.build(options.fashion, options.photos), options.pool))
            return 0
        from sslrob_mini.pretrain.loop import pretrain

        torch.set_num_threads(options.threads)
        pretrain(options.command, ALL[options.command], pool.read(options.pool), options.out)
    except SslrobError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name != "lightly":
            raise
        print("error: pretraining needs lightly\nhint: pip install 'sslrob-mini[pretrain]'", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.pretrain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("pool", help="build the pool of the training items and photographs")
    build.add_argument("--fashion", type=Path, required=True, metavar="DIR", help="Fashion-MNIST's four idx.gz files")
    build.add_argument("--photos", type=Path, required=True, metavar="DIR", help="skimage/data of scikit-image 0.18.3")
    build.add_argument("--pool", type=Path, required=True, metavar="DIR", help="where it is written (0.6 GB)")
    for name in ALL:
        method = commands.add_parser(name, help=f"pretrain {name}, or go on where a killed run stopped")
        method.add_argument("--pool", type=Path, required=True, metavar="DIR", help="folder of the pool")
        method.add_argument("--out", type=Path, required=True, metavar="DIR", help="where checkpoint, log and weights are written")
        method.add_argument("--threads", type=int, default=1, help="processor threads (other numbers round differently)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
