"""Changes the library in small ways, one at a time, and runs the tests that should notice: `make mutants`.

What the tests let pass is either a test that is missing or a change that changes nothing. `equivalent.toml` explains
the latter, one by one.
"""
