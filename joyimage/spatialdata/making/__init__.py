"""Data sets from scenes: each scene's work, what spreads it over processes, and the merge of what came out."""

from .merging import Made as Made
from .running import make as make
