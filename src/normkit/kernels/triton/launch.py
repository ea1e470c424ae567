"""How a kernel is launched: pure functions of shape, dtype and chip.

Nothing is tried out at run time: the first call is fast, and a result's bits do not depend on timing.
What decides the order of a row's additions depends on the row's width and dtype alone, so a row's
result does not depend on the rows beside it; what decides that of a weight's gradient, on the shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from normkit.kernels.triton.tuned import TUNED

__all__ = [
    "BACKWARD",
    "FORWARD",
    "PARTS",
    "PER_CHANNEL",
    "Chip",
    "Launch",
    "channels",
    "mixed",
    "neighbours",
    "row_backward",
    "row_forward",
    "row_slab",
    "row_tile",
    "rows_each",
    "rows_of_a_part",
    "rows_together",
    "turns",
    "wide_rows_each",
]


@dataclass(frozen=True)
class Chip:
    """What of a GPU a launch depends on.

    warp: threads of a warp (32) or wavefront (64).
    l2_bytes: of its last cache.
    architecture: as its maker calls it, "sm_90" or "gfx942".
    """

    warp: int = 32
    l2_bytes: int = 32 << 20
    architecture: str = ""


@dataclass(frozen=True)
class Launch:
    """How a matrix is dealt out to programs.

    rows, columns: of one program at a step, powers of two.
    warps: of a program.
    """

    rows: int
    columns: int
    warps: int


@dataclass(frozen=True)
class Budget:
    """Bytes, in the accumulation dtype, of one operand of a program of a pass.

    held: of a row of float32 that stays in registers, of which a processor has 256 KB; half of it in
        float64, whose arithmetic takes more of them.
    together: of several rows; with less, too few loads are on their way to hide memory's latency.
    """

    name: str
    held: int
    together: int = 16 << 10


FORWARD = Budget("forward", held=64 << 10)
BACKWARD = Budget("backward", held=32 << 10)  # x, grad_y and two sums at once
SLAB = 16 << 10  # bytes of a part of a wider row, in the accumulation dtype
MOST_ROWS = 64
BYTES_A_THREAD = 64
MOST_THREADS = 1024


def row_forward(n: int, size: int, chip: Chip) -> Launch | None:
    """Rows of n elements accumulated in numbers of `size` bytes; None where registers can't hold one."""
    return _rows(n, size, chip, FORWARD)


def row_backward(n: int, size: int, chip: Chip) -> Launch | None:
    """Likewise, of the gradients."""
    return _rows(n, size, chip, BACKWARD)


def _rows(n: int, size: int, chip: Chip, budget: Budget) -> Launch | None:
    if n * size > budget.held * 4 // size:
        return None
    columns = _power_of_two(n)
    measured = TUNED.get((chip.architecture, budget.name, size, columns))
    if measured is not None:
        return Launch(measured[0], columns, measured[1])
    rows = max(1, min(MOST_ROWS, budget.together // (columns * size)))
    return Launch(rows, columns, _warps(rows * columns * size, chip))


def neighbours(how: Launch, chip: Chip) -> list[Launch]:
    """Launches of the same columns to try instead: half, as many and twice the rows and the warps."""
    found = [
        replace(how, rows=how.rows * up // down, warps=how.warps * more // less)
        for up, down in ((1, 2), (1, 1), (2, 1))
        for more, less in ((1, 2), (1, 1), (2, 1))
    ]
    return [h for h in found if h.rows and h.warps and h.warps * chip.warp <= MOST_THREADS and h != how]


def row_slab(size: int, chip: Chip) -> Launch:
    """A part of a row that is too wide for one program."""
    return Launch(1, SLAB // size, _warps(SLAB, chip))


TILE_ROWS = 8


def row_tile(size: int, chip: Chip) -> Launch:
    """A part of several such rows: a weight's gradient is a sum over rows. Its programs take slabs too."""
    # Twice the threads: two such parts, and as many sums, have to stay in registers.
    return Launch(TILE_ROWS, SLAB // size // TILE_ROWS, _warps(2 * SLAB, chip))


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _warps(size: int, chip: Chip) -> int:
    threads = max(chip.warp, min(MOST_THREADS, size // BYTES_A_THREAD))
    return threads // chip.warp


# Programs of a backward pass at most: enough to fill every chip, few enough for their partial sums to
# be little traffic. Not the chip's own number: bits would then differ from one to the next.
MOST_PARTS = 512


def rows_each(rows: int, how: Launch, summed: bool) -> int:
    """Rows of one program of a backward pass."""
    if not summed:
        return how.rows
    return -(-rows // (MOST_PARTS * how.rows)) * how.rows


# Rows of one partial sum where rows are wide. With more of them partial sums are less traffic, but what
# they are of has to stay in the last cache: two tensors of so many bytes.
MOST_WIDE_ROWS = 64
PART = 8 << 20


def wide_rows_each(n: int, itemsize: int) -> int:
    """Rows of n elements of `itemsize` bytes in one partial sum, a multiple of a tile's."""
    fit = PART // (n * itemsize * TILE_ROWS) * TILE_ROWS
    return min(MOST_WIDE_ROWS, max(TILE_ROWS, fit))


def rows_together(row_bytes: int, each: int, chip: Chip) -> int:
    """How many rows are read, and then again while the next ones are: a third of the last cache, by `each`.

    row_bytes: of all tensors of which a row is read.
    """
    return max(1, chip.l2_bytes // 3 // (row_bytes * each)) * each


def turns(rows: int, together: int) -> list[tuple[int, int, int]]:
    """(first, middle, last) of each launch: it finishes rows [first, middle) and measures [middle, last)."""
    ends = [0, *(min(end, rows) for end in range(0, rows + 2 * together, together))]
    return [turn for turn in zip(ends, ends[1:], ends[2:], strict=False) if turn[0] < turn[2]]


def mixed(finishing: int, measuring: int) -> tuple[int, int]:
    """How many programs do both kinds of task, and how many that measure follow one that finishes."""
    finishing = max(1, finishing)
    bunch = -(-measuring // finishing)
    return finishing * (bunch + 1), bunch


def channels(outer: int, inner: int, size: int, chip: Chip) -> Launch:
    """A BatchNorm's matrix of `outer` rows, `inner` wide: planes, or the channels of a position."""
    together = BACKWARD.together * 4 // size // size
    columns = min(_power_of_two(inner), 1024)
    rows = min(_power_of_two(outer), max(1, together // columns))
    # Two warps at least: for one alone a compute unit's compiler runs out of scalar registers.
    return Launch(rows, columns, max(2, _warps(rows * columns * size, chip)))


def rows_of_a_part(outer: int, tiles: int, how: Launch) -> int:
    """Rows of one partial sum, where `tiles` programs share each row's columns or planes."""
    parts = max(1, 2 * MOST_PARTS // tiles)
    return -(-outer // (parts * how.rows)) * how.rows


PER_CHANNEL = Launch(rows=1, columns=128, warps=4)
# How partial sums are added up.
PARTS = Launch(rows=16, columns=64, warps=4)
