"""The processes that train together: one, or as many as a launcher such as torchrun has started."""

from stages.train.ranks.exchange import Ranks
from stages.train.ranks.rendezvous import joined

__all__ = ["Ranks", "joined"]
