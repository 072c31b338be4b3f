"""How many workers there are, and what each is given."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import JoyImageError
from ..settings import AUTO, Settings, check_batch_size, finite, given, number, whole
from ..waiting import LOAD_SECONDS, check_load_seconds

ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")  # a host's name, or an address in brackets


@dataclass(frozen=True)
class Pool(Settings):
    """Workers on this machine or on a cluster. Raises `JoyImageError` for a value that cannot be used, naming it."""

    workers: int | None = number(None, 1, 1024, help="processes that hold the model (one for each GPU, else one)")
    gpus_per_worker: float | None = number(None, 0, 16, 0.25, help="0.5 lets two share a GPU (1 where there are GPUs)")
    cpus_per_worker: float | None = number(None, 0.1, 256, 0.1, help="to reserve for each (0.5)")
    batch: int = number(1, 1, 64, help="rows that share a forward, which moves pixels by a level at most")
    load_seconds: int = given(LOAD_SECONDS, "in which a worker must have loaded the model")
    address: str | None = given(None, "of a Ray cluster, as in HOST:6379, or auto (Ray on this machine alone)")

    def __post_init__(self):
        if self.workers is not None and (not whole(self.workers) or self.workers < 1):
            raise JoyImageError(f"workers is {self.workers!r:.40}; give a whole number of at least 1")
        for name, least in (("gpus_per_worker", 0), ("cpus_per_worker", 0.01)):
            value = getattr(self, name)
            if value is not None and (not finite(value) or value < least):
                raise JoyImageError(f"{name} is {value!r:.40}; give a number of at least {least}")
        gpus = self.gpus_per_worker or 0
        if gpus > 1 and gpus % 1:
            raise JoyImageError(f"gpus_per_worker is {self.gpus_per_worker}; above 1 only whole GPUs can be given")
        check_batch_size(self.batch)
        check_load_seconds(self.load_seconds)
        if self.address is not None:
            check_address(self.address)


def check_address(address: str) -> None:
    """Raise `JoyImageError` for what is neither an address as `ray start --head` prints it nor "auto"."""
    if address != AUTO and not (isinstance(address, str) and ADDRESS.fullmatch(address)):
        raise JoyImageError(
            f"address is {address!r:.60}; give HOST:PORT as `ray start --head` prints it, such as 10.0.0.1:6379, "
            f"or {AUTO}"
        )
