"""Speed and memory beside Diffusers, as ratios measured in one run: `make bench`."""
