"""The server's certificate and its key, read before anything else is."""

from __future__ import annotations

import ssl
from pathlib import Path

from ...errors import JoyImageError, MissingFileError


def tls_context(certificate: Path | None, key: Path | None = None) -> ssl.SSLContext | None:
    """What to serve by, or None without a certificate. Both files are PEM; the key may stand in that of the
    certificate, which begins with the server's own and goes on with those that it rests on.

    Raises `MissingFileError` for a file that is not there, and `JoyImageError` for one that cannot be used, for a key
    that is encrypted or belongs to another certificate, and for one without a certificate.
    """
    if certificate is None:
        if key is not None:
            raise JoyImageError(f"--tls-key {key} is of no use alone: name its certificate, --tls-certificate")
        return None
    for path in filter(None, (certificate, key)):
        _check_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 at least
    try:
        context.load_cert_chain(certificate, key, password=_refuse)
    except Encrypted:
        raise JoyImageError(
            f"the key in {key or certificate} is encrypted; give one that is not, as `openssl pkey` writes it"
        ) from None
    except (ssl.SSLError, OSError) as error:
        why = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        what = f"{certificate} and {key}" if key else f"{certificate} alone"
        raise JoyImageError(
            f"{what}: no certificate with its key, as PEM ({why}); give --tls-certificate and --tls-key of one pair"
        ) from None
    return context


class Encrypted(Exception):
    """A password is asked for, and nobody is there to type it."""


def _refuse() -> str:
    raise Encrypted


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path} for TLS") from None
    except OSError as error:
        raise JoyImageError(f"{path} cannot be read for TLS: {error.strerror or error}") from None
