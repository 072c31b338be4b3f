"""Hundreds of mixed prompts in one running ComfyUI: all are answered, and its memory stays where it was."""
