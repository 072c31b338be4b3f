"""Runners of public benchmarks: SpatialEdit-Bench, LongText-Bench, and multiple choice in VLMEvalKit's tables.

Metrics are arithmetic on boxes, poses, texts and letters, and need no network. Whatever finds those in pictures is a
callable (`joyimage.evaluation.tools`), by default the model at hand.
"""
