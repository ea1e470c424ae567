"""A pytest plugin: the tests run on the C++ core that NORMKIT_CORE names, built under a sanitizer."""

import importlib.util
import os
import sys

NAME, PATH = "normkit.kernels.cpu._core", os.environ["NORMKIT_CORE"]


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, PATH) if name == NAME else None


sys.meta_path.insert(0, Finder)


def pytest_report_header():
    """Ends the run where another core would be tested, or another instruction set than was asked for."""
    from normkit.kernels import cpu

    assert cpu.why_not is None, cpu.why_not
    assert cpu._core.__file__ == PATH
    wanted = os.environ.get("NORMKIT_CPU", cpu.instruction_set())
    assert cpu.instruction_set() == wanted, f"this CPU has no {wanted}"
    return f"core: {PATH}, {cpu.instruction_set()}"
