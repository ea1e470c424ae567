"""The full bench into `results/`, in a file named by machine and versions; taken up where it was left.

Further arguments go to `normkit bench`.
"""

import sys
from pathlib import Path

from normkit import cli
from normkit.bench.machine import this_machine

RESULTS = Path(__file__).parent / "results"

if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    saved = RESULTS / f"{this_machine().name}.json"
    sys.exit(cli.main(["bench", "--full", "--resume", "--json", str(saved), *sys.argv[1:]]))
