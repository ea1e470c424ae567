"""Python in a process of its own, as a user's would be, with the tests importable."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python(*arguments, timeout=300, **environment):
    """What it printed; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def sweep(*arguments, **environment):
    """The report of `tests.kernels.sweep`."""
    return json.loads(python("-m", "tests.kernels.sweep", *arguments, **environment).stdout)


def interpreted(*arguments):
    """The same, of the Triton kernels in Triton's interpreter."""
    environment = {"TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    done = python("-m", "tests.kernels.sweep", "--triton", *arguments, timeout=900, **environment)
    return json.loads(done.stdout)
