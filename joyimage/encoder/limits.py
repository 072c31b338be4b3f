"""How much the encoder reads. Nothing heavy is imported here: plans and checks of inputs need the numbers alone."""

# In tokens. A context's length does not count the system's turn, which is dropped.
TEXT_LIMIT = 2048  # of a context without images
IMAGE_LIMIT = 4096  # of a context with images
TEXT_ALWAYS_KEPT = 512  # of a prompt: images cannot push these out, however many there are
QUESTION_LIMIT = 4096  # of a question, or of a prompt to be rewritten; attention over more takes minutes on a CPU
CHARACTERS = 64  # for each of these tokens: what a text has beyond is dropped before it is taken apart into tokens
PACK_LIMIT = 4096  # of prompts run together: bounds the mask to 4096 x (prefix + 4096)

# Of an image.
MIN_PIXELS, MAX_PIXELS = 65_536, 16_777_216  # Qwen3-VL's range; images beyond it are resampled
MAX_ASPECT = 200  # longer side to shorter
