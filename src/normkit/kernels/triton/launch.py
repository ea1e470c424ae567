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
    "MOMENTS",
    "PARTS",
    "PER_CHANNEL",
    "SHARING",
    "SHARING_CENTRED",
    "Chip",
    "Launch",
    "Shared",
    "Sharing",
    "channels",
    "in_pairs",
    "moments_registers",
    "most_registers",
    "neighbours",
    "reads_ahead",
    "row_backward",
    "row_forward",
    "rows_ahead",
    "rows_each",
    "rows_of_a_part",
    "shared_rows",
    "sharing_of",
    "stages",
    "waiting_groups",
    "wide_parts",
]


@dataclass(frozen=True)
class Chip:
    """What of a GPU a launch depends on.

    warp: threads of a warp (32) or wavefront (64).
    processors: multiprocessors; 0 where programs can't be made to run all at the same time.
    architecture: as its maker calls it, "sm_90" or "gfx942".
    """

    warp: int = 32
    processors: int = 0
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
    """Bytes, in the accumulation dtype, of one operand of a pass.

    held: of a row of float32 that stays in registers, of which a processor has 256 KB; half of it in
        float64, whose arithmetic takes more of them.
    thread: of a thread. More of them, and fewer threads wait for each other in a sum; fewer, and more are
        there to wait for memory.
    """

    name: str
    held: int
    thread: int


FORWARD = Budget("forward", held=128 << 10, thread=128)
BACKWARD = Budget("backward", held=32 << 10, thread=64)  # x, grad_y and two sums at once
FLOAT64_THREAD = 64  # at most: with more rows to a thread their masks don't fit gfx942's scalar registers
MOST_ROWS = 64
MOST_THREADS = 1024


# The widest row, by bytes of an element, that a program centres as fast as several that share it: it sums
# twice, with nothing on its way meanwhile.
CENTRED_ALONE = {2: 16384, 4: 8192}
# The same, by whether it is centred, of rows that are read number by number, which takes more registers.
UNALIGNED_ALONE = {True: 8192, False: 16384}


def row_forward(n: int, size: int, chip: Chip, itemsize: int = 0, centred: bool = False) -> Launch | None:
    """Rows of n elements of `itemsize` bytes, accumulated in `size` bytes; None where several share a row."""
    most = CENTRED_ALONE.get(itemsize, n) if centred else n
    if n % 16:
        most = min(most, UNALIGNED_ALONE[centred])
    if chip.processors and n > most:
        return None
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
    # Programs of one warp, whose threads need not wait for each other, where that holds a row.
    thread = budget.thread if size == 4 else min(budget.thread, FLOAT64_THREAD)
    rows = max(1, min(MOST_ROWS, thread * chip.warp // (columns * size)))
    return Launch(rows, columns, _warps(columns * size, thread, chip))


def neighbours(how: Launch, chip: Chip) -> list[Launch]:
    """Launches of the same columns to try instead: half, as many and twice the rows and the warps."""
    found = [
        replace(how, rows=how.rows * up // down, warps=how.warps * more // less)
        for up, down in ((1, 2), (1, 1), (2, 1))
        for more, less in ((1, 2), (1, 1), (2, 1))
    ]
    return [h for h in found if h.rows and h.warps and h.warps * chip.warp <= MOST_THREADS and h != how]


@dataclass(frozen=True)
class Sharing:
    """A pass over rows that several programs share.

    thread: bytes of the data that a thread has of a row.
    warps: of a program; more of them, and fewer programs wait for each other.
    ahead: rows that are measured before the first is finished, and stay in registers.
    registers: of a thread, at the most: of 64 thousand of a processor.
    """

    thread: int
    warps: int
    ahead: int
    registers: int


# By pass and bytes of an element: of what was tried on an H200 the best. Backward a thread also holds two
# sums for each of its columns.
SHARING = {
    ("forward", 2): Sharing(thread=128, warps=8, ahead=2, registers=255),
    ("forward", 4): Sharing(thread=128, warps=8, ahead=2, registers=255),
    ("forward", 8): Sharing(thread=64, warps=4, ahead=2, registers=255),
    ("backward", 2): Sharing(thread=64, warps=8, ahead=2, registers=255),
    ("backward", 4): Sharing(thread=64, warps=8, ahead=2, registers=255),
    ("backward", 8): Sharing(thread=32, warps=4, ahead=2, registers=255),
}
# Where the sum of two things and their totals are held, there are no registers left for another row.
SHARING_CENTRED = {("backward", 2): replace(SHARING["backward", 2], ahead=1)}
HALVED = 1.07  # what it costs to have programs half as large: as much as so many more columns


@dataclass(frozen=True)
class Shared:
    """How rows are dealt out to programs that share them.

    columns: of a program's slab, a power of two.
    slabs: of a row.
    most_slabs: a power of two for them, and not less than a program has threads.
    groups: of `slabs` programs, that can all run at the same time; none if 0.
    warps, ahead, registers: as above.
    prefetch: whether the chip has an instruction to read a slab into its second cache.
    """

    columns: int
    slabs: int
    most_slabs: int
    groups: int
    warps: int
    ahead: int
    registers: int
    prefetch: bool


def shared_rows(which: str, rows: int, n: int, itemsize: int, centred: bool, chip: Chip) -> Shared:
    """Rows that are too wide for one program."""
    sharing = _sharing(which, n, itemsize, centred, chip.warp)
    slabs = _slabs(n, itemsize, chip.warp, sharing)
    groups = waiting_groups(rows, slabs, _at_a_time(sharing) * chip.processors)
    return Shared(
        columns=_slab(itemsize, chip.warp, sharing),
        slabs=slabs,
        most_slabs=max(sharing.warps * chip.warp, _power_of_two(slabs)),
        groups=groups,
        warps=sharing.warps,
        ahead=sharing.ahead,
        registers=sharing.registers,
        prefetch=chip.architecture.startswith("sm_") and int(chip.architecture[3:]) >= 90,
    )


def in_pairs(itemsize: int, n: int) -> bool:
    """Whether numbers of 16 bits are read by twos: where all rows can begin at a multiple of 16 bytes."""
    return itemsize == 2 and n % 16 == 0


def sharing_of(which: str, itemsize: int, centred: bool) -> Sharing:
    """By programs as large as they are at most."""
    usual = SHARING[which, itemsize]
    return SHARING_CENTRED.get((which, itemsize), usual) if centred else usual


def _sharing(which: str, n: int, itemsize: int, centred: bool, warp: int) -> Sharing:
    """With programs as large as that, a half or a quarter: the columns of the last one that there are not
    cost as much as those that there are.
    """
    whole = sharing_of(which, itemsize, centred)
    if itemsize == 2 and not in_pairs(itemsize, n):
        whole = replace(whole, thread=whole.thread // 2)  # which take a register each

    def smaller(halvings: int) -> Sharing:
        return replace(whole, warps=max(1, whole.warps >> halvings))

    def cost(halvings: int) -> float:
        columns = _slab(itemsize, warp, smaller(halvings)) * _slabs(n, itemsize, warp, smaller(halvings))
        return columns * HALVED**halvings

    return smaller(min(range(3), key=cost))


def _slab(itemsize: int, warp: int, sharing: Sharing) -> int:
    return sharing.thread * sharing.warps * warp // itemsize


def _slabs(n: int, itemsize: int, warp: int, sharing: Sharing) -> int:
    return -(-n // _slab(itemsize, warp, sharing))


def waiting_groups(rows: int, slabs: int, programs: int) -> int:
    """Into how many groups so many programs go, which share rows and wait for each other."""
    return min(rows, programs // slabs)


def wide_parts(rows: int, n: int, itemsize: int, centred: bool, warp: int) -> int:
    """Partial sums of a weight's gradient over rows that programs share."""
    sharing = _sharing("backward", n, itemsize, centred, warp)
    return max(1, min(rows, _at_a_time(sharing) * PROCESSORS // _slabs(n, itemsize, warp, sharing)))


def _at_a_time(sharing: Sharing) -> int:
    """Programs of a processor of CUDA's, which has registers for them."""
    of_a_warp = -(-sharing.registers // 8) * 8 * 32
    return min(MOST_PROGRAMS, (64 << 10) // (of_a_warp * sharing.warps))


PROCESSORS = 128  # that partial sums are made for, whatever the chip has
MOST_PROGRAMS = 16  # of a processor, of the smallest


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _warps(size: int, thread: int, chip: Chip) -> int:
    threads = max(chip.warp, min(MOST_THREADS, size // thread))
    return threads // chip.warp


# Partial sums of a weight's gradient: enough warps to fill every chip, once; of several rows, to be little
# traffic, unless there are few. Not by the chip's own number: bits would then differ from one to the next.
MOST_WARPS = 2048
ROWS_OF_A_PART = 16
FEW_PARTS = 128


def rows_each(rows: int, how: Launch, summed: bool) -> int:
    """Rows of one program of a backward pass."""
    if not summed:
        return how.rows
    parts = min(MOST_WARPS // how.warps, max(FEW_PARTS, rows // ROWS_OF_A_PART))
    return -(-rows // (parts * how.rows)) * how.rows


STAGED = 96 << 10  # bytes of a program's data on its way: every CUDA chip has room for them


def stages(how: Launch, itemsize: int, chip: Chip) -> int:
    """How many steps of a backward pass are on their way or at work at a time, of x and grad_y.

    Elements of four bytes keep memory busy as it is.
    """
    fit = 3 * 2 * how.rows * how.columns * itemsize <= STAGED
    return 3 if chip.processors and itemsize < 4 and fit else 1


ALONE = 16  # warps of a program that has a processor to itself, with so many bytes in each thread


def reads_ahead(how: Launch, centred: bool, itemsize: int, chip: Chip) -> bool:
    """Whether the programs of a forward pass take several rows, and read one while they finish another.

    Where no other program of the processor keeps memory busy meanwhile, two sums take their time, and what is
    read leaves registers to work with.
    """
    return chip.processors > 0 and centred and how.warps == ALONE and itemsize < 4


def most_registers(how: Launch, chip: Chip) -> int:
    """Of a thread of a forward pass; 0: as the assembler likes. On sm_80 it spills to fit two programs."""
    return 128 if how.warps == ALONE and chip.architecture.startswith("sm_8") else 0


def rows_ahead(rows: int, how: Launch, chip: Chip) -> int:
    """Rows of each of these programs."""
    return -(-rows // (chip.processors * how.rows)) * how.rows


# Bytes, in float32, of a tile of BatchNorm's data. With the channels last a thread has statistics of several
# of them besides: the tile is smaller, and more so where there are few channels, but of float32 (measured).
PLANES, POSITIONS, FEW_POSITIONS, FEW_CHANNELS = 16 << 10, 8 << 10, 4 << 10, 256
TILE_THREAD = 64
CHANNEL_WARPS = {True: 4096, False: 2048}  # of a pass that sums over the rows, by whether it is planar


def channels(outer: int, inner: int, planar: bool, itemsize: int, chip: Chip) -> Launch:
    """A BatchNorm's matrix of `outer` rows, `inner` wide: planes, or the channels of a position."""
    size = max(4, itemsize)
    tile = FEW_POSITIONS if itemsize != 4 and inner <= FEW_CHANNELS else POSITIONS
    together = (PLANES if planar else tile) * 4 // size // size
    columns = min(_power_of_two(inner), 1024)
    rows = min(_power_of_two(outer), max(1, together // columns))
    # Two warps at least: for one alone a compute unit's compiler runs out of scalar registers.
    return Launch(rows, columns, max(2, _warps(rows * columns * size, TILE_THREAD, chip)))


def moments_registers(planar: bool, itemsize: int, chip: Chip) -> int:
    """Of a thread that sums a BatchNorm's moments; 0: as the assembler likes, or it spills some."""
    return 96 if chip.processors > 0 and planar and itemsize < 4 else 0


def rows_of_a_part(outer: int, tiles: int, planar: bool, how: Launch) -> int:
    """Rows of one partial sum, where `tiles` programs share each row's columns or planes."""
    parts = max(1, CHANNEL_WARPS[planar] // how.warps // tiles)
    return -(-outer // (parts * how.rows)) * how.rows


PER_CHANNEL = Launch(rows=1, columns=128, warps=4)
# How partial sums are added up, and partial moments in float64: many at once, for there is little else to
# hide memory's latency behind.
PARTS = Launch(rows=128, columns=32, warps=8)
MOMENTS = Launch(rows=128, columns=8, warps=4)
