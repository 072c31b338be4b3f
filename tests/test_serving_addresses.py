"""Pictures from addresses: of hosts that are allowed by name alone, wherever those names lead."""

from __future__ import annotations

import base64
import gzip
import io
import ipaddress
import socket
from collections.abc import Iterator

import httpx
import openai
import pytest
from live_server import Live, live_server, model, png, scene
from picture_host import Host, host
from PIL import Image

from joyimage import JoyImageError
from joyimage.scale.serving import fetching
from joyimage.scale.serving.hosts import Site, allowed, is_public
from joyimage.scale.serving.settings import Serving

FIRST = "images.example.com"


@pytest.mark.parametrize(
    ("text", "site"),
    [
        (FIRST, ("https", FIRST, 443)),
        ("IMAGES.Example.COM.", ("https", FIRST, 443)),
        ("https://images.example.com:8443/", ("https", FIRST, 8443)),
        ("http://images.example.com", ("http", FIRST, 80)),
        ("http://10.0.0.5:8080", ("http", "10.0.0.5", 8080)),
        ("https://[::1]:8443", ("https", "::1", 8443)),
        ("https://[0:0:0::1]", ("https", "::1", 443)),
        ("bücher.example", ("https", "xn--bcher-kva.example", 443)),
        ("ＩＭＡＧＥＳ.example.com", ("https", FIRST, 443)),
        ("straße.example", ("https", "xn--strae-oqa.example", 443)),  # and not strasse.example, another host
    ],
)
def test_a_host_is_written_in_one_way(text, site):
    assert Site.of(text) == Site(*site)


@pytest.mark.parametrize(
    "text",
    ["", "*.example.com", ".example.com", "example.com/pictures", "ftp://example.com", "user@example.com", "a b",
     "example.com:0", "example.com:70000", "http://", "exa_mple..com", "127.1", "2130706433", "0x7f.0.0.1", "::1",
     "[::1", "[1::2::3]", "a" * 300, "exämple\u2028.com"],
)  # fmt: skip
def test_what_is_no_host_is_refused_when_the_server_starts(text):
    with pytest.raises(JoyImageError, match=r"allow_host is .*: give one host to the letter"):
        Serving(allow_host=(FIRST, text))


SITES = Serving(allow_host=(FIRST, "http://10.0.0.5:8080", "bücher.example")).sites


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (f"https://{FIRST}/a.png", "/a.png"),
        ("HTTPS://IMAGES.example.COM.:443/a.png?size=1#part", "/a.png?size=1"),
        (f"https://{FIRST}", "/"),
        (f"https://{FIRST}?key=a%2Fb+c", "/?key=a%2Fb+c"),
        ('http://10.0.0.5:8080/ä/"x"', "/%C3%A4/%22x%22"),
        ("https://bücher.example/x", "/x"),
        ("https://xn--bcher-kva.example/x", "/x"),
    ],
)
def test_addresses_of_allowed_hosts(address, path):
    assert allowed(address, SITES)[1] == path


@pytest.mark.parametrize(
    "address",
    [
        f"http://{FIRST}/a.png", f"https://{FIRST}:8443/a.png", f"https://x.{FIRST}/a.png", f"https://{FIRST}.evil.io/",
        f"https://x{FIRST}/a.png", "https://example.com/", f"https://{FIRST}@evil.io/", f"https://me:pw@{FIRST}/a.png",
        f"https://evil.io\\@{FIRST}/", f"https://{FIRST}\\.evil.io/", f"https://evil.io#@{FIRST}/",
        f"https://evil.io/{FIRST}", f"https:{FIRST}/a.png", f"https:///{FIRST}/a.png", f"//{FIRST}/a.png",
        f" https://{FIRST}/a.png", f"https://{FIRST}/a b", f"https://{FIRST}/a\r\nHost: evil.io", f"ftp://{FIRST}/a",
        f"https://{FIRST}%2eevil.io/", f"https://{FIRST}..", f"https://{FIRST}:/x/", f"https://{FIRST}:443443/",
        "http://10.0.0.5/", "https://10.0.0.5:8080/", "http://10.5:8080/", "http://167772165:8080/",
        "http://0xa.0.0.5:8080/", "http://[::ffff:10.0.0.5]:8080/", "https://bucher.example/", "file:///etc/passwd",
        f"https://{FIRST}/{'x' * 5000}", "",
    ],
)  # fmt: skip
def test_no_other_address_is_of_an_allowed_host(address):
    assert allowed(address, SITES) is None


def test_none_is_allowed_unless_it_is_named():
    assert Serving().allow_host == () and allowed(f"https://{FIRST}/a.png", Serving().sites) is None


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_what_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:93.184.216.34", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
     "2001:db8::1"],
)  # fmt: skip
def test_what_is_not_public(address):
    assert not is_public(address)


@pytest.fixture(scope="module")
def live() -> Live:
    return live_server()


@pytest.fixture
def pictures() -> Iterator[Host]:
    whole = png(scene())
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    answers = {
        "/a.png": (200, {}, whole), "/text": (200, {}, b"no picture"), "/bomb": (200, {}, bomb.getvalue()),
        "/large": (200, {}, b"\0" * 3 * 2**20), "/missing": (404, {}, whole), "/slow": (200, {}, whole[:50]),
        "/moved": (302, {"Location": "/a.png"}, whole),
        "/packed": (200, {"Content-Encoding": "gzip"}, gzip.compress(whole)),
    }  # fmt: skip
    with host(answers) as pictures:
        yield pictures


def asked(live: Live, address: str, **options):
    content = [
        {"type": "text", "text": "Which colour is the car?"},
        {"type": "image_url", "image_url": {"url": address}},
    ]
    messages = [{"role": "user", "content": content}]
    with httpx.Client(trust_env=False) as client:
        chat = live.client(http_client=client).chat.completions
        answer = chat.create(model="tiny", messages=messages, temperature=0, **options)
        return list(answer) if options.get("stream") else answer


def error(live: Live, address: str) -> tuple[int, str, str]:
    """How a question about what is at an address is refused."""
    with pytest.raises(openai.APIStatusError) as refused:
        asked(live, address)
    assert refused.value.type == "invalid_request_error" and refused.value.param == "messages"
    return refused.value.status_code, refused.value.code, refused.value.body["message"]


@pytest.mark.slow
def test_a_picture_of_an_allowed_host_is_as_if_it_were_sent(live, pictures):
    address = f"{pictures.url}/a.png"
    with live.set(allow_host=(pictures.url,)), live.http() as client:
        answer = asked(live, f"{address}?key=a%2Fb")
        edited = client.post("/v1/images/edits", json={"image": [address], "prompt": "Remove the car.", "steps": 1})
        located = client.post("/v1/locate", json={"image": address, "object": "car"})
        streamed = "".join(each.choices[0].delta.content or "" for each in asked(live, address, stream=True))
    assert answer.choices[0].message.content == model().ask(scene(), "Which colour is the car?", temperature=0)
    assert streamed == answer.choices[0].message.content
    (made,) = model().edit(scene(), "Remove the car.", steps=1)
    answered = base64.b64decode(edited.json()["data"][0]["b64_json"])
    assert Image.open(io.BytesIO(answered)).tobytes() == made.tobytes()
    assert located.json()["boxes"] == [list(box) for box in model().locate(scene(), "car")]
    assert pictures.asked[0]["path"] == "/a.png?key=a%2Fb"
    assert not {"authorization", "cookie", "referer"} & pictures.asked[0].keys()
    assert pictures.asked[0]["host"] == f"127.0.0.1:{pictures.port}"


@pytest.mark.slow
def test_without_the_option_addresses_are_refused_as_ever(live, pictures):
    status, code, message = error(live, f"{pictures.url}/a.png")
    assert (status, code) == (400, "not_a_data_url")
    assert message.endswith("this server opens no addresses or files")
    assert pictures.asked == []


@pytest.mark.slow
def test_other_hosts_are_refused_before_the_first_is_asked(live, pictures):
    with live.set(allow_host=(pictures.url,)), live.http() as client:
        fields = {"image": [f"{pictures.url}/a.png", f"http://localhost:{pictures.port}/a.png"], "prompt": "x"}
        answer = client.post("/v1/images/edits", json=fields).json()["error"]
        file = error(live, "/etc/passwd")
        many = client.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": f"{pictures.url}/a.png?{i}"}} for i in range(50)
            ]}]},
        )  # fmt: skip
    assert (answer["code"], answer["param"]) == ("host_not_allowed", "image")
    assert "127.0.0.1" not in answer["message"]
    assert file[:2] == (400, "host_not_allowed")
    assert (many.status_code, many.json()["error"]["code"]) == (400, "limit_exceeded")
    assert pictures.asked == []


@pytest.mark.slow
def test_whatever_fails_the_client_is_told_the_same(live, pictures, monkeypatch):
    monkeypatch.setattr(fetching, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    tls = f"https://127.0.0.1:{pictures.port}"
    with live.set(allow_host=(pictures.url, nobody, tls, "https://nowhere.invalid", "http://localhost:1")):
        ways = ["/missing", "/moved", "/slow"]
        told = {error(live, f"{pictures.url}{way}") for way in ways}
        told |= {
            error(live, f"{site}/a.png") for site in (nobody, tls, "https://nowhere.invalid", "http://localhost:1")
        }
    ((status, code, message),) = told
    assert (status, code) == (424, "picture_not_fetched") and "its host gave none, or no answer" in message
    assert [each["path"] for each in pictures.asked] == ways, "and not where it was moved"


@pytest.mark.slow
def test_what_comes_is_checked_as_an_upload(live, pictures):
    with live.set(allow_host=(pictures.url,), max_megabytes=1):
        assert error(live, f"{pictures.url}/text")[:2] == (400, "invalid_image")
        assert error(live, f"{pictures.url}/packed")[:2] == (400, "invalid_image"), "or a megabyte would be a thousand"
        assert error(live, f"{pictures.url}/bomb")[:2] == (413, "too_many_pixels")
        assert error(live, f"{pictures.url}/large")[:2] == (413, "too_large")


@pytest.mark.slow
def test_several_pictures_have_one_bound(live):
    noise = Image.effect_noise((850, 850), 90)
    half = png(noise)
    assert 2**19 < len(half) < 2**20
    halves = dict.fromkeys(("/a", "/b"), (200, {}, half))
    with host(halves) as pictures, live.set(allow_host=(pictures.url,), max_megabytes=1), live.http() as client:
        fields = {"image": [f"{pictures.url}/a", f"{pictures.url}/b"], "prompt": "x"}
        answer = client.post("/v1/images/edits", json=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.fixture
def names(monkeypatch) -> dict[str, list[str]]:
    """What names lead to, in place of the system's; and how often each was looked up."""
    known: dict[str, list[str]] = {}
    lookup = socket.getaddrinfo

    def found(name, port, *args, **kwargs):
        if name not in known:
            return lookup(name, port, *args, **kwargs)
        known.setdefault(f"asked {name}", []).append("")
        version = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            (version[ipaddress.ip_address(each).version], socket.SOCK_STREAM, 6, "", (each, port))
            for each in known[name]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return known


@pytest.mark.slow
@pytest.mark.parametrize("led", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"], []])
def test_a_name_that_leads_into_a_network_that_is_not_public_is_not_followed(live, pictures, names, monkeypatch, led):
    monkeypatch.setattr(fetching, "SECONDS", 5.0)
    names[FIRST] = led
    with live.set(allow_host=(f"http://{FIRST}:{pictures.port}",)):
        assert error(live, f"http://{FIRST}:{pictures.port}/a.png")[:2] == (424, "picture_not_fetched")
    assert pictures.asked == []


@pytest.mark.slow
def test_the_connection_goes_to_the_address_that_was_looked_at(live, pictures, names, monkeypatch):
    looked: list[str] = []
    monkeypatch.setattr(fetching, "is_public", lambda address: looked.append(address) is None)
    names[FIRST] = ["127.0.0.1"]
    with live.set(allow_host=(f"http://{FIRST}:{pictures.port}",)):
        assert asked(live, f"http://{FIRST}:{pictures.port}/a.png").choices
    assert looked == ["127.0.0.1"] and len(names[f"asked {FIRST}"]) == 1
    assert pictures.asked[0]["host"] == f"{FIRST}:{pictures.port}"


@pytest.mark.slow
def test_no_proxy_of_the_environment_is_used(live, pictures, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with live.set(allow_host=(pictures.url,)):
        assert asked(live, f"{pictures.url}/a.png").choices
    assert len(pictures.asked) == 1
