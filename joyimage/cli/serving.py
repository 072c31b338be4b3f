"""`joyimage serve`: the model behind an address."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from ..errors import JoyImageError
from ..scale.loading import Loading
from ..scale.serving.settings import HOST, KEY_VARIABLE, PORT, Serving, check_binding, key_from
from .commands import check_loras, loading, note_model, saved_name
from .flags import More, add_setting, words

# What is imported, by the packages of the extra `scale` that bring it.
EXTRA = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python-multipart": "python_multipart",
    "prometheus-client": "prometheus_client",
    "aiohttp": "aiohttp",
}


def run_serve(options) -> None:
    serving = Serving(**{name: getattr(options, name) for name in Serving.names()})
    key = key_from()
    check_binding(options.host, key, options.without_key)
    check_loras(options)
    from ..scale.serving.tls import tls_context

    tls = tls_context(options.tls_certificate, options.tls_key)
    if missing := [package for package, name in EXTRA.items() if importlib.util.find_spec(name) is None]:
        raise JoyImageError(f'the server needs {" and ".join(missing)}: run `pip install "joyimage[scale]"`')
    loadings = _loadings(options)
    from ..scale.serving.server import serve

    name = options.name or Path(saved_name(options)).name

    def tell(address: str) -> None:
        print(json.dumps({"address": address, "model": name}) if options.json else address, flush=True)

    serve(
        loadings, serving, name, host=options.host, port=options.port, key=key, without_key=options.without_key,
        tls=tls, told=tell,
    )  # fmt: skip


def _loadings(options) -> list[Loading]:
    """One for each process. Raises `JoyImageError` for devices that are named in two ways."""
    if options.devices == ():
        raise JoyImageError("--devices names none; give devices with commas between, such as cuda:0,cuda:1")
    if options.devices and (options.device or options.workers is not None):
        raise JoyImageError("--devices names one device for each process; leave out --device and --workers")
    if options.workers is not None and options.workers < 1:
        raise JoyImageError(f"--workers is {options.workers}; give the number of processes, at least 1")
    if (options.guidance_devices or options.sequence_devices) and (options.devices or options.workers or 1) != 1:
        raise JoyImageError("devices that share a picture are those of one process: leave out --devices and --workers")
    note_model(options)
    first = loading(options)
    if options.devices:
        return [first.on(device) for device in options.devices]
    return [first] * (options.workers or 1)


def add_serve(commands, parents) -> None:
    serve = commands.add_parser(
        "serve",
        parents=parents,
        help="serve the model to others, by OpenAI's protocol",
        description="Prints its address when it takes requests; a page for trying it is there. "
        f"Clients must send the key in ${KEY_VARIABLE}, where there is one.",
    )
    serve.add_argument("--host", default=HOST, help=f"address to serve on ({HOST}: this machine alone)")
    serve.add_argument("--port", type=int, default=PORT, help=f"0 takes a free one ({PORT})")
    serve.add_argument("--without-key", action="store_true", help="let everybody in who reaches the address")
    serve.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM: serve by https, with its --tls-key")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM, not encrypted (in the certificate's file)")
    serve.add_argument("--name", help="of the model, for clients (that of its folder)")
    serve.add_argument("--devices", type=words, metavar="DEVICE,…", help="a process with the model for each")
    serve.add_argument("--workers", type=int, metavar="N", help="processes with the model on --device (1)")
    limits = serve.add_argument_group("limits")
    for name in Serving.limits():
        add_setting(limits, Serving, name)
    serve.add_argument(
        "--allow-host", type=words, action=More, default=Serving.allow_host, metavar="HOST",
        help=f"{Serving.help('allow_host')}; may be repeated",
    )  # fmt: skip
    serve.set_defaults(run=run_serve)
