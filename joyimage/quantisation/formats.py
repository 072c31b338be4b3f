"""Every format that a tensor in a file may have, as the rows of one table, and which weights are quantised.

Nothing here imports torch, so that headers are read without it. Names are torch's where it has such a dtype, and
`getattr(torch, name)` gives that.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

PLAIN, QUANTISED, UNSUPPORTED = "plain", "quantised", "unsupported"
UNPACKED_AT_ONCE = 2**24  # weights made floating point at a time: bounds the float32 on the way to 64 MiB
SWIZZLE_ROWS, SWIZZLE_COLUMNS = 128, 4  # of scales that tensor cores read together


@dataclass(frozen=True)
class Scale:
    """One tensor of scales: a number for each block of `rows` x `columns` weights; 0 stands for all of them.

    So (0, 0) is one number for the whole weight, (1, 0) one for each row, (128, 128) one for each such square, where
    the last blocks may be cut off. In a file the tensor is called the weight's name and `suffix`. `dtype` is what a
    scale is stored as, and `swizzled` says that they lie there in the order in which tensor
    cores read them, in squares of 128 x 4 that are filled up with zeros.
    """

    rows: int = 0
    columns: int = 0
    dtype: str = "float32"
    suffix: str = "_scale"
    swizzled: bool = False

    def shape(self, weight: Shape) -> Shape:
        """That of the scales of a weight (rows, …), in memory: () or (blocks down, blocks across)."""
        if not (self.rows or self.columns):
            return ()
        rows, columns = as_matrix(weight)
        return -(-rows // (self.rows or rows or 1)), -(-columns // (self.columns or columns or 1))

    def stored_shape(self, weight: Shape) -> Shape:
        shape = self.shape(weight)
        return (rounded_up(shape[0], SWIZZLE_ROWS), rounded_up(shape[1], SWIZZLE_COLUMNS)) if self.swizzled else shape


# What lies beside fp8 and int8, whose formats say nothing of scales: one, one for each row, or DeepSeek's and Qwen's.
WHOLE, ROWS, SQUARES = Scale(), Scale(rows=1), Scale(128, 128, suffix="_scale_inv")


@dataclass(frozen=True)
class Format:
    """How numbers are stored: `block` neighbours of a row take `block_bytes` bytes.

    A `kind` of PLAIN is a dtype whose numbers are what they say, UNSUPPORTED is recognised and refused. QUANTISED ones
    need a function in `tensor.UNPACK` and `scales`, which come from the file where the row names none. `code` is the
    dtype's in a safetensors header, `number` the type's in a GGUF file, `comfy` the format's in ComfyUI's note of a
    layer, `stored` the dtype of the tensor that such a note is about. With a `rotation`, groups of that many columns
    are rotated by `tensor.hadamard`, as `W @ H`. Rows and columns are filled up to a multiple of `multiple` in a file.
    """

    name: str
    code: str = ""
    number: int | None = None
    block: int = 1
    block_bytes: int = 1
    floating: bool = False
    kind: str = PLAIN
    comfy: str | None = None
    stored: str | None = None
    scales: tuple[Scale, ...] = ()
    rotation: int = 0
    multiple: int = 1

    @property
    def supported(self) -> bool:
        return self.kind != UNSUPPORTED

    @property
    def computes(self) -> bool:
        """Whether a network can compute in it."""
        return self.kind == PLAIN and self.floating

    @property
    def ggml(self) -> bool:
        """Whether it is one of GGUF's block types."""
        return self.number is not None and not self.code

    def nbytes(self, shape: Shape) -> int:
        return math.prod(shape) // self.block * self.block_bytes

    def filled_up(self, shape: Shape) -> Shape:
        """The shape that a weight of this one has in a file."""
        return shape if self.multiple == 1 else tuple(rounded_up(side, self.multiple) for side in shape)


def rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def as_matrix(shape: Shape) -> tuple[int, int]:
    """A weight as rows and columns: a kernel (out, in, …) has a row for each of its outputs."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def _blocks(name: str, number: int, block: int, block_bytes: int, kind: str = QUANTISED) -> Format:
    return Format(name, "", number, block, block_bytes, kind=kind)


E8M0 = "float8_e8m0fnu"  # powers of two: an exponent, and nothing else
SWIZZLED_32 = Scale(1, 32, E8M0, swizzled=True)
SWIZZLED_16 = Scale(1, 16, "float8_e4m3fn", swizzled=True)
WHOLE_2 = Scale(suffix="_scale_2")

# fmt: off
FORMATS = {row.name: row for row in (
    Format("float64", "F64", 28, block_bytes=8, floating=True),
    Format("float32", "F32", 0, block_bytes=4, floating=True),
    Format("float16", "F16", 1, block_bytes=2, floating=True),
    Format("bfloat16", "BF16", 30, block_bytes=2, floating=True),
    Format("int64", "I64", 27, block_bytes=8),
    Format("int32", "I32", 26, block_bytes=4),
    Format("int16", "I16", 25, block_bytes=2),
    Format("uint8", "U8"),
    Format("uint16", "U16", block_bytes=2),
    Format("uint32", "U32", block_bytes=4),
    Format("uint64", "U64", block_bytes=8),
    Format("complex64", "C64", block_bytes=8),
    Format("bool", "BOOL"),
    Format(E8M0, "F8_E8M0"),
    Format("float8_e4m3fn", "F8_E4M3", floating=True, kind=QUANTISED, comfy="float8_e4m3fn"),
    Format("float8_e5m2", "F8_E5M2", floating=True, kind=QUANTISED, comfy="float8_e5m2"),
    Format("int8", "I8", 24, kind=QUANTISED, comfy="int8_tensorwise"),
    Format("int8_convrot", kind=QUANTISED, comfy="int8_tensorwise", stored="int8", rotation=256),
    Format("mxfp8", kind=QUANTISED, comfy="mxfp8", stored="float8_e4m3fn", scales=(SWIZZLED_32,), multiple=32),
    Format("nvfp4", block=2, kind=QUANTISED, comfy="nvfp4", stored="uint8", scales=(SWIZZLED_16, WHOLE_2), multiple=16),
    _blocks("Q4_0", 2, 32, 18),
    _blocks("Q4_1", 3, 32, 20),
    _blocks("Q5_0", 6, 32, 22),
    _blocks("Q5_1", 7, 32, 24),
    _blocks("Q8_0", 8, 32, 34),
    _blocks("Q8_1", 9, 32, 40, UNSUPPORTED),
    _blocks("Q2_K", 10, 256, 84),
    _blocks("Q3_K", 11, 256, 110),
    _blocks("Q4_K", 12, 256, 144),
    _blocks("Q5_K", 13, 256, 176),
    _blocks("Q6_K", 14, 256, 210),
    _blocks("Q8_K", 15, 256, 292, UNSUPPORTED),
    _blocks("IQ2_XXS", 16, 256, 66, UNSUPPORTED),
    _blocks("IQ2_XS", 17, 256, 74, UNSUPPORTED),
    _blocks("IQ3_XXS", 18, 256, 98, UNSUPPORTED),
    _blocks("IQ1_S", 19, 256, 50, UNSUPPORTED),
    _blocks("IQ4_NL", 20, 32, 18, UNSUPPORTED),
    _blocks("IQ3_S", 21, 256, 110, UNSUPPORTED),
    _blocks("IQ2_S", 22, 256, 82, UNSUPPORTED),
    _blocks("IQ4_XS", 23, 256, 136, UNSUPPORTED),
    _blocks("IQ1_M", 29, 256, 56, UNSUPPORTED),
    _blocks("TQ1_0", 34, 256, 54, UNSUPPORTED),
    _blocks("TQ2_0", 35, 256, 66, UNSUPPORTED),
    _blocks("MXFP4", 39, 32, 17, UNSUPPORTED),
)}
# fmt: on
BY_CODE = {row.code: row for row in FORMATS.values() if row.code}
BY_NUMBER = {row.number: row for row in FORMATS.values() if row.number is not None}
# Of a format and its rotated twin, the plain one: the rotation is said apart.
BY_COMFY = {row.comfy: row for row in FORMATS.values() if row.comfy and not row.rotation}


def format_name(dtype: Any) -> str:
    """ "bfloat16" for torch.bfloat16, and for itself."""
    return str(dtype).removeprefix("torch.")


# -- which weights are quantised --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Weights that are not quantised when a file is written, by the start of their names (ours), and why.

    Those that a file has quantised all the same stay so in memory, unless `always`: their layers cannot use them so.
    """

    pattern: str
    why: str
    always: bool = False


# Besides, whatever is no matrix is kept: biases, norms and modulation tables are 0.02 % of the weights, and each is
# added to or multiplied into every token.
KEPT: dict[str, tuple[Kept, ...]] = {
    "mmdit": (
        Kept(r"condition_embedder\.time_", "its six vectors shift, scale and gate every token of every block"),
        Kept(
            r"condition_embedder\.text_embedder\.",
            "the first layers of the text: no later one can make up for an error",
        ),
        Kept(r"img_in\.", "the first layer of the picture: 64 numbers become a token"),
        Kept(r"proj_out\.", "the last layer: its errors are errors of the velocity"),
    ),
    "encoder": (
        Kept(
            r"(.*\.)?embed_tokens\.", "the first layer of the text; its rows are looked up, so its size costs no time"
        ),
        Kept(r"lm_head\.", "the last layer: the likeliest word can hang on the third decimal"),
        # transformers asks the position embedding for its dtype, so it is a layer of torch's own
        Kept(r"(.*\.)?visual\.pos_embed\.", "the first layers of a picture", always=True),
        Kept(r"(.*\.)?visual\.patch_embed\.", "the first layers of a picture"),
        Kept(
            r"(.*\.)?visual\.(merger|deepstack_merger_list)\.",
            "the last layers of a picture: all that text sees of it",
        ),
    ),
    "vae": (Kept(r"", "1.5 % of the weights, whose errors are errors of pixels", always=True),),
}
NO_MATRIX = "biases, norms, tables and kernels: small, and used by every token"
NO_BLOCKS = "rows that do not divide into the format's blocks"


def why_kept(component: str, name: str, shape: Shape) -> str | None:
    """Why the weight `name` (ours) of "mmdit", "vae" or "encoder" is not quantised; None if it is."""
    reasons = (kept.why for kept in KEPT[component] if re.match(kept.pattern, name))
    return next(reasons, None) or (None if len(shape) == 2 else NO_MATRIX)


def stays_quantised(component: str, name: str, shape: Shape, form: Format) -> bool:
    """Whether a weight that a file has in the format `form` stays so in memory; what does not is floating point there.

    It does if it is a matrix of whole blocks, in a layer of ours.
    """
    always = (kept for kept in KEPT[component] if kept.always and re.match(kept.pattern, name))
    return len(shape) == 2 and not shape[1] % form.block and not any(always)
