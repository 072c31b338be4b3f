"""Answers computed again from a scene's truth, by other code than that which asked: boxes, cameras, depth and masks.

Nothing here reads the index, and of the geometry only what reads files.
"""
