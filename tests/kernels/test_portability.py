"""The core compiles for another processor from the same source."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

CORE = Path(__file__).parents[2] / "src/normkit/kernels/cpu"
COMPILER = shutil.which("aarch64-linux-gnu-g++")


@pytest.mark.skipif(COMPILER is None, reason="no compiler for ARM: apt-get install g++-aarch64-linux-gnu")
@pytest.mark.parametrize("source", ["simd/portable.cpp", "dispatch.cpp", "row_norm.cpp"])
def test_compiles_for_arm_with_neon(source, tmp_path):
    target = tmp_path / "core.o"
    include = Path(torch.__file__).parent / "include"
    flags = ["-std=c++20", "-O0", "-fPIC", "-Wno-psabi", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    subprocess.run([COMPILER, *flags, "-isystem", include, "-c", CORE / source, "-o", target], check=True)
    disassembler = COMPILER.replace("g++", "objdump")
    code = subprocess.run([disassembler, "-d", target], check=True, capture_output=True, text=True).stdout
    assert "aarch64" in code
    if source == "simd/portable.cpp":
        assert "fadd\tv" in code, "no NEON addition of float vectors"
