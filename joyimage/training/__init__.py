"""Training of LoRAs for the MMDiT: from pairs of pictures to a file. Needs `pip install "joyimage[train]"`."""
