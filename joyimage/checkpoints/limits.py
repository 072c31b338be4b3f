"""How much a file may hold: looked at before anything is built of it, so that none costs much more than its size.

The published model has 894 tensors in its MMDiT, 750 in its encoder and 194 in its VAE; their headers have 0.1 MB.
"""

MAX_HEADER_BYTES = 2**23  # safetensors allows 100 MB, of which Python would make a gigabyte of objects
MAX_GGUF_HEADER_BYTES = 2**26  # with a tokenizer of 150,000 tokens and as many merges it has 10 MB
MAX_TENSORS = 2**16
MAX_STRINGS = 2**20  # in the arrays of a GGUF header: they are passed over one by one
MAX_DIMS = 8  # of a tensor in a GGUF header
MAX_NESTING = 8  # dictionaries around the weights in a .pth; one may even hold itself
MAX_CONFIG_BYTES = 4096  # of the description of one layer
MAX_NAME = 500  # characters of a tensor's name; the networks' own have at most 62
MAX_PICKLE_BYTES = 2**23  # of what describes the tensors of a .pth: 85 for each
MAX_PICKLE_STEPS = 2**19  # 30 for a tensor
# In JSON, counted before it is parsed: each brace, colon and comma may become an object of 50 to 250 bytes.
MAX_JSON_BYTES = 2**23  # with one wide character in it, Python takes four bytes for each, and twice
MAX_JSON_SIGNS = {"{": 2**17, "[": 2**18, ":": 2**18 + 2**16, ",": 2**20}
