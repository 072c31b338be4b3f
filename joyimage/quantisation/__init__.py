"""Quantised weights: the table of formats, tensors and layers that hold them, and how they are written.

`formats` has a row for each format and imports no torch; `tensor` and `ggml` unpack what `layers` keep; `recipes` and
`kquants` make it.
"""
