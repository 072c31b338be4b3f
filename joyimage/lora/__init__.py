"""LoRA and its relatives: small updates of weights, from any trainer's file.

`read` a file, `match` it with networks, `apply` what was found: an update is applied while its layer runs, over
whatever way the weight is stored, or merged into the weight. Which keys and families there are: `keys`, `updates`.
"""

from .applying import Applied, LayerUpdates, match
from .reading import Lora, read

__all__ = ["Applied", "LayerUpdates", "Lora", "match", "read"]
