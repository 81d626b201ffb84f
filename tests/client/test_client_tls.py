"""TLS and headers by both protocols: Triton's own gRPC TLS, and HTTP behind a proxy that ends TLS."""

import asyncio
import json
import re

import pytest
from typer.testing import CliRunner

from lemica_backend.triton_server import TritonServer
from lemica_client import AsyncClient, Client, InvalidRequestError, ServerUnavailableError, Tls
from lemica_client.cli import app
from lemica_client.connection import connection_from_environment, parse_headers
from tests.client.stand_in import add_stand_in
from tests.client.tls_files import TlsProxy, make_certificate

FILE = {"file_format": "gif", "want_frames": False}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return {name: make_certificate(folder, name) for name in ("localhost", "client", "stranger")}


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory, certificates):
    """A server whose gRPC asks for the client's certificate too."""
    folder = tmp_path_factory.mktemp("tls_server")
    add_stand_in(folder / "models", "toy_stream", program="stand_in_model.py", is_decoupled=True)
    add_stand_in(folder / "models", "toy", program="large_model.py", is_decoupled=False)
    own = certificates["localhost"]
    arguments = ["--grpc-use-ssl=1", f"--grpc-server-cert={own.certificate}", f"--grpc-server-key={own.key}"]
    arguments += ["--grpc-use-ssl-mutual=1", f"--grpc-root-cert={certificates['client'].certificate}"]
    with TritonServer(folder / "models", log=folder / "server.log", extra_args=arguments) as server:
        server.wait_ready(timeout_s=180)
        yield server


@pytest.fixture(params=["grpcs", "https"])
def url(request, tls_server, certificates):
    if request.param == "grpcs":
        yield f"grpcs://localhost:{tls_server.grpc_url.rpartition(':')[2]}"
        return
    with TlsProxy(tls_server.http_url, certificates["localhost"], certificates["client"].certificate) as proxy:
        yield f"https://{proxy.url}"


def known(certificates, root="localhost", own="client"):
    shown = certificates[own]
    return Tls(certificates[root].certificate, shown.key, shown.certificate)


@pytest.mark.server
def test_trusted_certificates_carry_unary_and_stream(url, certificates):
    with Client(url, model="toy", tls=known(certificates), timeout_s=60) as client:
        assert client.generate("x", seed=4).info == {"seed": 4}
        assert list(client.stream("x", num_inference_steps=2, **FILE))[-1].file_bytes == b"GIF89ax"


@pytest.mark.server
def test_asyncio_takes_the_same_settings(url, certificates):
    async def make():
        async with AsyncClient(url, model="toy", tls=known(certificates), timeout_s=60) as client:
            events = [event async for event in client.stream("x", num_inference_steps=2, **FILE)]
            return (await client.generate("x", seed=4)).info, events[-1].file_bytes

    assert asyncio.run(make()) == ({"seed": 4}, b"GIF89ax")


@pytest.mark.server
@pytest.mark.parametrize(("root", "own"), [("stranger", "client"), ("localhost", "stranger")])
def test_strangers_are_refused_on_either_side(url, certificates, root, own):
    tls = known(certificates, root, own)
    client = Client(url, model="toy", tls=tls, timeout_s=20, retries=0)
    with client, pytest.raises(ServerUnavailableError) as caught:
        client.generate("x")
    if root == "stranger":
        assert re.search(f"no server can be reached at {url}: .*CERTIFICATE_VERIFY_FAILED", str(caught.value))


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_the_insecure_switch_trusts_everybody(scheme, stand_in, certificates):
    target = stand_in.grpc_url if scheme == "grpcs" else stand_in.http_url
    with TlsProxy(target, certificates["stranger"]) as proxy:
        url = f"{scheme}://127.0.0.1:{proxy.url.rpartition(':')[2]}"  # a name that the certificate does not have
        with Client(url, model="large", timeout_s=20, retries=0) as careful, pytest.raises(ServerUnavailableError):
            careful.generate("x")
        with Client(url, model="large", timeout_s=20, tls=Tls(is_insecure=True)) as careless:
            assert careless.generate("x", seed=2).info == {"seed": 2}


@pytest.mark.server
@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_headers_go_along_with_every_request(stand_in, certificates, kind):
    with TlsProxy(stand_in.http_url, certificates["localhost"]) as proxy:
        tls = Tls(certificates["localhost"].certificate)
        headers = {"Authorization": "Bearer abc"}
        with Client(
            f"https://{proxy.url}", model="large", stream_model="toy_stream", headers=headers, tls=tls
        ) as client:
            list(client.stream("x", num_inference_steps=1, **FILE)) if kind == "stream" else client.generate("x")
        requests = [data for data in proxy.seen if b" HTTP/1.1" in data]
        assert len(requests) == 2  # the model's configuration, and the request
        assert all(b"authorization: bearer abc" in data.lower() for data in requests)


@pytest.mark.server
def test_the_command_line_takes_options_and_environment(tls_server, certificates, monkeypatch):
    url = f"grpcs://localhost:{tls_server.grpc_url.rpartition(':')[2]}"
    tls = known(certificates)
    monkeypatch.setenv("LEMICA_TLS_ROOT", tls.root_certificates)
    options = ["--tls-key", tls.private_key, "--tls-cert", tls.certificate_chain]
    done = CliRunner().invoke(app, ["plan", "--url", url, "--model", "toy", *options, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["names"]) == (0, {"fast": 4, "slow": 6})
    monkeypatch.setenv("LEMICA_URL", url)
    monkeypatch.setenv("LEMICA_TLS_KEY", tls.private_key)
    monkeypatch.setenv("LEMICA_TLS_CERT", tls.certificate_chain)
    with Client.from_env(model="toy") as client:
        assert client.plan()["names"]["fast"] == 4


def test_the_environment_is_read_as_a_whole(monkeypatch):
    monkeypatch.setenv("LEMICA_HEADERS", "Authorization: Bearer a b\nx-team: me\n")
    monkeypatch.setenv("LEMICA_TLS_INSECURE", "1")
    monkeypatch.setenv("LEMICA_URL", "https://a.example:443")
    headers = {"authorization": "Bearer a b", "x-team": "me"}
    assert connection_from_environment() == ("https://a.example:443", headers, Tls(is_insecure=True))


@pytest.mark.parametrize("line", ["secret without a colon", ": secret", "a b: secret", "x: sécret", "x: a\nb: secret"])
def test_a_header_that_is_none_is_refused_without_its_value(line):
    with pytest.raises(InvalidRequestError, match="header") as caught:
        parse_headers([line])
    assert "cret" not in str(caught.value)


def test_tls_settings_are_checked_before_anything_is_sent(tmp_path):
    with pytest.raises(InvalidRequestError, match="go together"):
        Tls(private_key="key.pem")
    with pytest.raises(InvalidRequestError, match="grpcs://"):
        Client("grpc://localhost:8001", tls=Tls(is_insecure=True))
    missing = Tls(root_certificates=str(tmp_path / "none.pem"))
    for url in ("grpcs://localhost:8001", "https://localhost:8001"):
        with pytest.raises(InvalidRequestError, match=r"none\.pem"):
            Client(url, tls=missing).generate("x")
