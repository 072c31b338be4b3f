"""Damaged files through all that reads them: one of our own errors comes out or a result, soon and in little room.

| file | what stands there |
| --- | --- |
| `mutations.py` | damage to bytes and to JSON |
| `containers.py` | damage to safetensors and GGUF that knows their structure, and so gets behind headers |
| `pickles.py` | PyTorch's files with odd objects in them, and damaged archives |
| `pictures.py` | pictures in every format that Pillow writes, and damage to their chunks |
| `kinds.py` | the kinds of input: what is damaged, how, and what it goes through |
| `uses.py` | what an input goes through, and what counts as a fault |
| `worker.py` | a process that tries inputs, and the one that watches it |
"""
