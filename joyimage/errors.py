"""The errors this library raises on purpose. Each message says what is wrong, where, and what to do."""


class JoyImageError(ValueError):
    """Input that cannot be used: a prompt, an image, a size, a schedule, a file."""


class CheckpointError(JoyImageError):
    """A weight file, folder or tokenizer that cannot be used."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A path that does not exist; also a `FileNotFoundError`."""
