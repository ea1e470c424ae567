"""The floor: the fewest bytes a norm must move, moved by the core's own loops and nothing else done."""

from __future__ import annotations

import torch

# Defined here, not among the norms' operators: only the bench has a use for them.
for _schema in (
    "floor_copy(Tensor source, Tensor(a!) target, bool stream) -> ()",
    "floor_triad(Tensor a, Tensor b, Tensor(a!) target, bool stream) -> ()",
    "floor_read(Tensor a) -> ()",
    "floor_read2(Tensor a, Tensor b) -> ()",
):
    torch.library.define(f"normkit::{_schema.split('(')[0]}", _schema[_schema.index("(") :])

copy = torch.ops.normkit.floor_copy.default
triad = torch.ops.normkit.floor_triad.default
read = torch.ops.normkit.floor_read.default
read2 = torch.ops.normkit.floor_read2.default
