"""The server on a local Ray under load: `python -m tools.replicas`. Does a second replica come, and go again?

Clients ask the app of docs/scale.md, with min=1 and max=2, for small edits on the bundled model and a processor until
two replicas are at work, and on for a while; then they stop, and one replica has to go while a last client goes on
asking. Ends with 1 if the number of replicas was another, a request was lost, or a picture was not the library's.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import openai
import ray
from PIL import Image
from ray import serve

from joyimage import JoyImage
from joyimage.scale.serving.ray_app import app
from joyimage.scale.serving.settings import KEY_VARIABLE

KEY, NAME = "key-of-replicas", "joyimage"
STEPS = 60
DELAYS = {"upscale_delay_s": 2, "downscale_delay_s": 10}
LIMIT = 300.0  # seconds for what has to come


class Load:
    """Clients that ask for one picture after the other until they are stopped."""

    def __init__(self, address: str, clients: int):
        self.client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=20, timeout=LIMIT)
        self.stopped, self.pictures, self.failures = threading.Event(), Counter[bytes](), Counter[str]()
        self.threads = [threading.Thread(target=self.ask) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self) -> None:
        while not self.stopped.is_set():
            try:
                answer = self.client.images.generate(prompt="a red cube", extra_body={"seed": 2, "steps": STEPS})
                data = base64.b64decode(answer.data[0].b64_json)
                self.pictures[Image.open(io.BytesIO(data)).tobytes()] += 1
            except openai.OpenAIError as error:
                self.failures[str(error)[:200]] += 1

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def running() -> int:
    """Replicas that take requests."""
    return serve.status().applications[NAME].deployments[NAME].replica_states.get("RUNNING", 0)


def seconds_until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > LIMIT:
            raise SystemExit(f"it did not come to that within {LIMIT:g} seconds: {running()} replicas")
        time.sleep(0.25)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--cpus", type=float, default=0.5, help="of a replica, as Ray counts them")
    options = parser.parse_args()
    os.environ[KEY_VARIABLE] = KEY
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False,
             _node_ip_address="127.0.0.1")  # fmt: skip
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        given = {"gpus": 0, "cpus": options.cpus, "device": "cpu", "min": 1, "max": 2, **DELAYS}
        serve.run(app(given), route_prefix="/", name=NAME)
        before = running()
        load = Load(f"http://127.0.0.1:{port}", options.clients)
        up = seconds_until(lambda: running() == 2)
        time.sleep(20)
        most = running()
        load.stop()
        last = Load(f"http://127.0.0.1:{port}", 1)
        down = seconds_until(lambda: running() == 1)
        last.stop()
    finally:
        serve.shutdown()
        ray.shutdown()
    (picture,) = JoyImage.load("tiny", device="cpu").generate("a red cube", seed=2, steps=STEPS)
    made, failures = load.pictures + last.pictures, load.failures + last.failures
    wrong = made.total() - made[picture.tobytes()]
    print(
        f"{before} replica; with {options.clients} clients a second took requests after {up:.0f} s, and there were "
        f"{most}; with one client it was gone after {down:.0f} s. {made.total()} pictures, {wrong} of them wrong, "
        f"{failures.total()} failures {dict(failures) or ''}"
    )
    return int(before != 1 or most != 2 or bool(wrong or failures))


if __name__ == "__main__":
    sys.exit(main())
