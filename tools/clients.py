"""Many clients of `joyimage serve` at once: `python -m tools.clients --clients 20 --requests 200`.

Each sends pictures of its own, one after the other, by OpenAI's client, which comes again when the queue is full. Says
how long answers took, and compares each picture with what the library makes by itself. Ends with 1 if one was lost or
is another's. The server is started here, on the bundled model and a free port.
"""

from __future__ import annotations

import argparse
import base64
import io
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import openai
from PIL import Image, ImageDraw

from joyimage import JoyImage
from joyimage.demo import asset

from .malformed import KEY, png, served


def marked(number: int) -> Image.Image:
    """A scene that is told from all others by where a square is, and by its colour."""
    picture = asset("camera.png").copy()
    left, top = number % 50, number // 50 * 8
    ImageDraw.Draw(picture).rectangle((left, top, left + 8, top + 8), fill=(number, 255 - number, 90))
    return picture


def edit(client: openai.OpenAI, number: int, steps: int) -> tuple[float, bytes]:
    """Seconds, and the pixels of the answer."""
    began = time.perf_counter()
    answer = client.images.edit(
        image=("picture.png", png(marked(number)), "image/png"), prompt=f"Remove square {number}.",
        extra_body={"seed": number, "steps": steps},
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return seconds, Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).tobytes()


def ask(address: str, numbers: range, steps: int) -> dict[int, tuple[float, bytes]]:
    """One client's requests."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=100, timeout=600) as client:
        return {number: edit(client, number, steps) for number in numbers}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    limits = ["--queue", str(options.queue), "--workers", str(options.workers)]
    shares = [range(i, options.requests, options.clients) for i in range(options.clients)]
    with served(*limits) as client, ThreadPoolExecutor(options.clients) as threads:
        began = time.perf_counter()
        parts = list(threads.map(lambda numbers: ask(str(client.base_url), numbers, options.steps), shares))
        whole = time.perf_counter() - began
        counted = client.get("/metrics").text
    answers = {number: answer for part in parts for number, answer in part.items()}
    told = [line for line in counted.splitlines() if line.startswith("joyimage_requests_total") and '"429"' in line]
    refused = sum(float(line.split()[-1]) for line in told)
    model = JoyImage.load("tiny", device="cpu")

    def alone(number: int) -> bytes:
        edits = model.edit(marked(number), f"Remove square {number}.", seed=number, steps=options.steps)
        return edits[0].tobytes()

    mixed = [number for number, (_, pixels) in answers.items() if pixels != alone(number)]
    times = statistics.quantiles([seconds for seconds, _ in answers.values()], n=100, method="inclusive")
    print(
        f"{len(answers)} of {options.requests} requests of {options.clients} clients answered in {whole:.1f} s; "
        f"p50 {times[49]:.2f} s, p99 {times[98]:.2f} s; {refused:.0f} times told to come again; {len(mixed)} mixed up"
    )
    return int(bool(mixed) or len(answers) != options.requests)


if __name__ == "__main__":
    sys.exit(main())
