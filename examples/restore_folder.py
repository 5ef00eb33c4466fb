"""Restore every picture of a folder; what cannot be read is named, and the rest goes on.

python examples/restore_folder.py examples/photos out/photos

The command line does the same and more: `facerestore restore examples/photos -o out/photos --report`.
"""

import sys

import facerestore as fr
from facerestore.batch import ItemResult


def main(source: str, target: str) -> int:
    pipe = fr.load("lite")

    def say(item: ItemResult) -> None:
        print(item.row["source"], item.row["status"], item.row.get("error") or "")

    # Interrupt it and start it again: what is done and intact is not done twice.
    summary = fr.restore_folder(pipe, [source], target, on_item=say)
    print(f"{dict(summary.counts)} in {summary.seconds:.0f} s, {summary.earlier} done by an earlier run")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
