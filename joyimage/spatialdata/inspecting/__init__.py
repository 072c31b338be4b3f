"""What is in a data set: counts, balance, and a sheet of pictures."""

from .contents import Contents as Contents
from .contents import inspect as inspect
from .sheet import sheet as sheet
