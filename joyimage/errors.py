"""The errors this library raises on purpose. Each message says what is wrong, where, and what to do."""

MOST_CHARACTERS = 2000  # of a message; what it quotes, such as a prompt or the names in a file, may be far longer


class JoyImageError(ValueError):
    """Input that cannot be used: a prompt, an image, a size, a schedule, a file."""

    def __init__(self, message: str):
        if len(message) > MOST_CHARACTERS:
            half = MOST_CHARACTERS // 2
            message = f"{message[:half]} [… {len(message) - 2 * half:,} characters more …] {message[-half:]}"
        super().__init__(message)


class CheckpointError(JoyImageError):
    """A weight file, folder or tokenizer that cannot be used."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A path that does not exist; also a `FileNotFoundError`."""
