"""One picture on several devices: each pass of guidance on one of its own, or a part of the tokens on each.

The process at work leads. For each further device it starts a process that holds the MMDiT and nothing else, tells it
what to compute, and ends it. Only the forwards are shared out: prompts, pictures, solver and callbacks stay with the
leader.
"""
