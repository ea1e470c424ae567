"""Who is timed: a file per contender, imported when it is asked for, as most are extras."""

from normkit.bench.contenders.base import Contender, Prepared, Unavailable
from normkit.bench.contenders.registry import CONTENDERS, OURS, PEERS, prepare

__all__ = ["CONTENDERS", "OURS", "PEERS", "Contender", "Prepared", "Unavailable", "prepare"]
