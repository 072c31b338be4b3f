"""Which product a quantised weight is multiplied by on which device, as the rows of one table; imports no torch.

An exact product rounds no activations. The kernels here do, to the few bits that a device multiplies fastest, and run
only where `products="8bit"` asked for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import EXACT
from .formats import ROWS, WHOLE, Format, Scale, Shape, as_matrix

SINGLE = ((), (WHOLE,), (ROWS,))  # no scale, one for all, one for each row: those that can wait until after a product
SCALED_AFTER = ("float8_e4m3fn", "float8_e5m2", "int8", "int8_convrot")  # a byte each, exact in bf16 and float32
FEWEST_TOKENS = 17  # below, reading the weights costs most, and an exact product reads no more of them


@dataclass(frozen=True)
class Hardware:
    """What a choice hangs on: the type of a device, and what it has.

    `capability` is that of a CUDA device, `vnni` says whether a processor has AVX512-VNNI, `kitchen` whether
    comfy-kitchen is installed with kernels for this device, `torch` is the version of torch.
    """

    type: str
    capability: tuple[int, int] = (0, 0)
    vnni: bool = False
    kitchen: bool = False
    torch: tuple[int, int] = (2, 8)


@dataclass(frozen=True)
class Kernel:
    """A product whose activations are rounded to `activations`, and what it needs.

    It takes weights of these formats whose rows and columns are multiples of `multiple`, on a device of the type
    `device` with the compute capability or the instructions (`vnni`) named, and with comfy-kitchen where `kitchen`.
    """

    name: str
    formats: tuple[str, ...]
    activations: str
    device: str
    multiple: int
    capability: tuple[int, int] = (0, 0)
    vnni: bool = False
    kitchen: bool = False
    torch: tuple[int, int] = (2, 4)
    scales: tuple[tuple[Scale, ...], ...] | None = SINGLE  # None: those of the format

    def takes(self, form: Format, shape: Shape) -> bool:
        """Whether it multiplies weights of this format, scales and shape."""
        known = form.name in self.formats and (self.scales is None or form.scales in self.scales)
        return known and not any(side % self.multiple for side in as_matrix(shape))

    def runs(self, hardware: Hardware) -> bool:
        return (
            self.device == hardware.type
            and self.capability <= hardware.capability
            and self.torch <= hardware.torch
            and self.vnni <= hardware.vnni
            and self.kitchen <= hardware.kitchen
        )

    @property
    def where(self) -> str:
        """The devices that it runs on, in words."""
        if self.device == "cpu":
            return "CPU with AVX512-VNNI"
        major, minor = self.capability
        return f"CUDA sm{major}{minor} and up" + (" with comfy-kitchen" if self.kitchen else "")


INT8 = ("int8", "int8_convrot")
INT8_ROWS, E4M3_ROWS = "int8, a scale for each token", "e4m3, a scale for each token"
# The first row that takes a weight and runs on a device is the fastest that it has. What is missing is slower there
# than the exact product: `_int_mm` on a processor without VNNI by 20 times, and wrong where its sums of two products
# pass 16 bits; `_scaled_mm` on any processor. Rows of `_scaled_mm` with scales came to sm89 and sm120 with torch 2.8.
KERNELS = (
    Kernel("comfy-kitchen int8_linear", INT8, INT8_ROWS, "cuda", 16, (7, 5), kitchen=True),
    Kernel("torch._int_mm", INT8, INT8_ROWS, "cuda", 8, (7, 5)),
    Kernel("torch._int_mm", INT8, INT8_ROWS, "cpu", 1, vnni=True),
    Kernel("torch._scaled_mm", ("float8_e4m3fn",), E4M3_ROWS, "cuda", 16, (8, 9), torch=(2, 8)),
    Kernel(
        "comfy-kitchen scaled_mm_mxfp8", ("mxfp8",), "e4m3, an exponent for 32 columns", "cuda", 32, (10, 0),
        kitchen=True, scales=None,
    ),
    Kernel(
        "comfy-kitchen scaled_mm_nvfp4", ("nvfp4",), "e2m1 (4 bits), a scale for 16 columns", "cuda", 32, (10, 0),
        kitchen=True, scales=None,
    ),
)  # fmt: skip


def kernel_for(form: Format, shape: Shape, hardware: Hardware) -> Kernel | None:
    """The fastest product with rounded activations that a device has for such a weight; None where it has none."""
    return next((row for row in KERNELS if row.takes(form, shape) and row.runs(hardware)), None)


def exact_product(form: Format) -> str:
    """How weights of a quantised format are multiplied where activations are not rounded."""
    if form.name in SCALED_AFTER and form.scales in SINGLE:
        return "codes as they are, the scale after" if form.scales else "codes as they are"
    return "weight made floating point part by part"


def described(form: Format, kind: str, device: str | None = None) -> str:
    """How weights of a quantised format are multiplied, by one of `settings.PRODUCTS`, in words: on one type of device,
    or on all."""
    known = (row for row in KERNELS if form.name in row.formats and (row.scales is None or form.scales in row.scales))
    rows = [f"{row.name} on {row.where}" for row in known if device in (None, row.device)]
    if kind == EXACT:
        return exact_product(form)
    return f"{', '.join(rows)}; else exact" if rows else "exact"
