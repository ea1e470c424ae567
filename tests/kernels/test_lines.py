"""Numbers of the core's own begin at a line of the caches, as PyTorch's do."""

import os
import subprocess
from pathlib import Path

import pytest

from normkit.kernels import cpu

# Where there is a core, there is what built it.
pytestmark = pytest.mark.skipif(cpu.why_not is not None, reason=f"no C++ core: {cpu.why_not}")

CORE = Path(__file__).parents[2] / "src/normkit/kernels/cpu"
COMPILER = os.environ.get("CXX", "c++")
PROGRAM = """
#include <cstdio>
#include <list>
#include <vector>
#include "lines.h"
using namespace normkit;
template <class A>
void print(int64_t n, long into, const Lines<A>& room) {
  for (int64_t i = 0; i < n; ++i) room[i] = A(i);
  std::printf("%zu %ld %ld %ld %ld %ld\\n", sizeof(A), long(n), into, long(uintptr_t(room.get()) % 4096),
              long(Lines<A>::stride(n)), long(Lines<A>::skewed(n)));
}
template <class A>
void print_all() {
  std::list<Lines<A>> kept;  // all at once, so that no two have the same place
  std::vector<int64_t> sizes = {512, 1024, 2048};
  for (int64_t n = 0; n < 300; n += 7) sizes.push_back(n);
  for (int64_t n : sizes) {
    print(n, -1, kept.emplace_back(n));
    for (long into : {0, 64, 1000, 4095, 70000}) print(n, into, kept.emplace_back(n, uintptr_t(into)));
  }
}
int main() {
  print_all<float>();
  print_all<double>();
}
"""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    program = tmp_path_factory.mktemp("lines") / "lines"
    program.with_suffix(".cpp").write_text(PROGRAM)
    subprocess.run(
        [COMPILER, "-std=c++20", "-I", CORE, program.with_suffix(".cpp"), "-o", program], check=True
    )
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [tuple(map(int, line.split())) for line in printed.splitlines()]


def test_they_begin_at_a_line(rooms):
    assert len(rooms) == 2 * 46 * 6
    assert {place % 64 for _, _, _, place, _, _ in rooms} == {0}


def test_they_begin_as_far_into_a_page_as_asked(rooms):
    asked = [(into, place) for _, _, into, place, _, _ in rooms if into >= 0]
    assert all(place == into % 4096 // 64 * 64 for into, place in asked)


def test_runs_begin_at_lines_too(rooms):
    for size, n, _, _, stride, skewed in rooms:
        assert n <= stride < n + 64 // size
        assert stride * size % 64 == 0
        assert skewed * size % 64 == 0


def test_runs_of_a_power_of_two_do_not_lie_alike_in_their_pages(rooms):
    powers = [(size, skewed) for size, n, _, _, _, skewed in rooms if n in (512, 1024, 2048)]
    assert powers
    for size, skewed in powers:
        assert len({i * skewed * size % 4096 for i in range(4)}) == 4
