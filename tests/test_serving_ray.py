"""The server on Ray: its arguments, and one replica that answers the official client."""

from __future__ import annotations

import base64
import io
import socket

import openai
import pytest
from live_server import model
from PIL import Image

from joyimage import JoyImageError
from joyimage.scale.serving.settings import KEY_VARIABLE, Serving

pytest.importorskip("ray.serve")


def test_arguments_are_read_and_mistakes_named():
    from joyimage.scale.serving.ray_app import Cluster

    given = {"model": "/models/edit", "gpus": "0.5", "max": "8", "queue": "4", "without_key": "true"}
    cluster, serving = Cluster.of(given)
    assert (cluster.model, cluster.gpus, cluster.without_key) == ("/models/edit", 0.5, True)
    assert (cluster.min, cluster.max) == (1, 8)
    assert Cluster.of({"upscale_delay_s": "2"})[0].upscale_delay_s == 2.0
    assert serving == Serving(queue=4)
    hosts = ("images.example.com", "http://10.0.0.5:8080")
    for several in (",".join(hosts), list(hosts)):  # as `serve run` gives them, and a configuration
        assert Cluster.of({"allow_host": several})[1].allow_host == hosts
    for wrong, message in (
        ({"gpu": "1"}, "there is no 'gpu'; there are model"),
        ({"max": "many"}, "max is 'many'"),
        ({"min": "3", "max": "2"}, "min=3 and max=2"),
        ({"without_key": "perhaps"}, "without_key is 'perhaps'"),
        ({"queue": "-1"}, "queue is -1"),
        ({"downscale_delay_s": "-1"}, "downscale_delay_s is -1"),
        ({"cpus": "nan"}, "cpus is nan; give 0 or more"),
        ({"allow_host": "*.example.com"}, r"allow_host is '\*.example.com'"),
    ):
        with pytest.raises(JoyImageError, match=message):
            Cluster.of(wrong)


def test_a_replica_without_a_key_is_refused(monkeypatch):
    from joyimage.scale.serving.ray_app import Cluster, replica

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(JoyImageError, match=f"{KEY_VARIABLE} is not set on this node"):
        replica(*Cluster.of({}))


def test_a_key_and_a_word_against_it_contradict_on_ray_too(monkeypatch):
    from joyimage.scale.serving.ray_app import Cluster, replica

    monkeypatch.setenv(KEY_VARIABLE, "key-of-a-cluster")
    with pytest.raises(JoyImageError, match=f"{KEY_VARIABLE} is set on this node: leave out one") as refused:
        replica(*Cluster.of({"without_key": "true"}))
    assert "key-of-a-cluster" not in str(refused.value)


@pytest.mark.slow
def test_one_replica_answers_the_official_client(monkeypatch):
    import ray
    from ray import serve

    from joyimage.scale.serving.ray_app import app

    monkeypatch.setenv(KEY_VARIABLE, "key-of-a-cluster")
    options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20, "log_to_driver": False}
    ray.init("local", _node_ip_address="127.0.0.1", **options)
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"gpus": "0", "cpus": "0.5", "device": "cpu"}), route_prefix="/", name="joyimage")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="key-of-a-cluster", max_retries=0)
        answer = client.images.generate(prompt="a red cube", extra_body={"seed": 2, "steps": 1})
        (made,) = model().generate("a red cube", seed=2, steps=1)
        assert Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))).tobytes() == made.tobytes()
        chunks = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "What is red?"}], stream=True, max_tokens=4
        )
        assert list(chunks)[-1].choices[0].finish_reason in ("stop", "length")
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="another").models.list()
    finally:
        serve.shutdown()
        ray.shutdown()
