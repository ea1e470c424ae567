"""How a kernel is launched: pure functions of shape, dtype and chip.

Nothing is tried out at run time: the first call is fast, and a result's bits do not depend on timing.
What decides the order of a row's additions depends on the row's width and dtype alone, so a row's
result does not depend on the rows beside it; what decides that of a weight's gradient, on the shape.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Chip", "Launch", "row_backward", "row_forward", "row_sums", "rows_each"]


@dataclass(frozen=True)
class Chip:
    """What of a GPU a launch depends on.

    warp: threads of a warp (32) or wavefront (64).
    """

    warp: int = 32


@dataclass(frozen=True)
class Launch:
    """How a matrix is dealt out to programs.

    rows, columns: of one program at a step, powers of two.
    warps: of a program.
    held: whether a step is a whole row, which then stays in registers until it is done.
    """

    rows: int
    columns: int
    warps: int
    held: bool = True


@dataclass(frozen=True)
class Budget:
    """Bytes, in the accumulation dtype, of one operand of a program.

    held: of a row of float32 that stays in registers, of which a processor has 256 KB; half of it in
        float64, whose arithmetic takes more of them.
    together: of several rows; with less, too few loads are on their way to hide memory's latency.
    step: of a part of a row that registers do not hold.
    """

    held: int
    together: int = 16 << 10
    step: int = 32 << 10


FORWARD = Budget(held=64 << 10)
BACKWARD = Budget(held=32 << 10)  # x, grad_y and two sums at once
MOST_ROWS = 64
BYTES_A_THREAD = 64
MOST_THREADS = 1024


def row_forward(n: int, size: int, chip: Chip) -> Launch:
    """Statistics and result of rows of n elements, accumulated in numbers of `size` bytes."""
    return _rows(n, size, chip, FORWARD)


def row_backward(n: int, size: int, chip: Chip) -> Launch:
    """The input's gradient; where rows are held, also the sums of the parameters'."""
    return _rows(n, size, chip, BACKWARD)


def row_sums(n: int, size: int, chip: Chip) -> Launch:
    """The sums of the parameters' gradients, a row at a time, where rows are not held."""
    columns = min(_power_of_two(n), 2048 // size)
    return Launch(1, columns, _warps(columns * size, chip))


def _rows(n: int, size: int, chip: Chip, budget: Budget) -> Launch:
    if n * size > budget.held * 4 // size:
        return Launch(1, budget.step // size, _warps(budget.step, chip), held=False)
    columns = _power_of_two(n)
    rows = max(1, min(MOST_ROWS, budget.together // (columns * size)))
    return Launch(rows, columns, _warps(rows * columns * size, chip))


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


def channels(outer: int, inner: int, size: int, chip: Chip) -> Launch:
    """A BatchNorm's matrix of `outer` rows, `inner` wide: planes, or the channels of a position."""
    together = BACKWARD.together // size
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
