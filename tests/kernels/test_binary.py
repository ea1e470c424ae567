"""Of PyTorch the built core uses the stable C interface alone, of Python the limited API alone."""

import platform
import re
import shutil
import subprocess
import sys

import pytest

import normkit as nk
from normkit.kernels import cpu

pytestmark = [
    pytest.mark.skipif(cpu.why_not is not None, reason=f"no C++ core: {cpu.why_not}"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file"),
]

# Of Python, what https://docs.python.org/3.10/c-api/stable.html lists (the limited API of 3.10, the
# oldest supported version) and the core has a use for. A new name is to be looked up there first.
LIMITED_API = {
    "PyCapsule_New",
    "PyModule_Create2",
    "PyModuleDef_Init",
    "PyUnicode_FromString",
    "_Py_Dealloc",
    "_Py_NoneStruct",
}

# Of PyTorch, the C shims of torch/csrc/stable and torch/csrc/inductor/aoti_torch, whose names and
# signatures stay from 2.10 on.
STABLE_PYTORCH = re.compile(r"(aoti_torch|torch)_[a-z0-9_]+$")


@pytest.fixture(scope="module")
def undefined():
    if shutil.which("nm") is None:
        pytest.skip("no `nm` (binutils) to read the symbols with")
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", cpu._core.__file__], capture_output=True, text=True, check=True
    ).stdout
    return [line.split()[-1].partition("@")[0] for line in listed.splitlines()]


def of_pytorch(symbol):
    return "torch" in symbol or re.search(r"3c10|2at[0-9N]|c10|N2at", symbol) is not None


def test_pytorchs_are_the_stable_ones(undefined):
    used = [symbol for symbol in undefined if of_pytorch(symbol)]
    assert len(used) > 5
    assert [symbol for symbol in used if not STABLE_PYTORCH.match(symbol)] == []


def test_pythons_are_of_the_limited_api(undefined):
    used = {symbol for symbol in undefined if re.match(r"_?Py", symbol)}
    assert used
    assert used <= LIMITED_API


def test_what_is_left_is_the_c_and_cpp_library(undefined):
    """Mangled names are those of the C++ standard library or its runtime."""
    mangled = [s for s in undefined if s.startswith("_Z") and not of_pytorch(s)]
    strangers = [
        s for s in mangled if not re.match(r"_Z(N[KRO]*S[tabsiod]|S[tabsiod]|T[IVS]|n[aw]|d[al])", s)
    ]
    assert strangers == []


def test_the_check_sees_a_stranger():
    assert of_pytorch("_ZN2at5emptyEv")
    assert of_pytorch("_ZN3c1010TensorImplE")
    assert of_pytorch("_ZN5torch8autograd4NodeE")
    assert not STABLE_PYTORCH.match("_ZN5torch8autograd4NodeE")
    assert not of_pytorch("_ZNSt6vectorIdE")
    assert "PyFrame_GetLocals" not in LIMITED_API


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for an x86 instruction")
def test_what_comes_next_is_fetched():
    """GCC 12 drops a prefetch whose function does nothing else: a core without the row norms' had 462."""
    if shutil.which("objdump") is None:
        pytest.skip("no `objdump` (binutils) to read the code with")
    code = subprocess.run(
        ["objdump", "--disassemble", cpu._core.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert len(re.findall(r"\tprefetch", code)) > 3000


def test_one_binary_for_every_python():
    assert cpu._core.__file__.endswith(".abi3.so")
    assert nk.backends()["cpu"].why_not is None
