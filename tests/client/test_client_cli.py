"""The command line, without a server: what it prints, what it exits with, and the commands of other packages."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from lemica_client import commands, errors
from lemica_client.cli import app
from lemica_planner import published_plan
from lemica_planner.cli import app as planner


def run(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Files land in a folder of the test's own, and no terminal's width wraps what is compared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def transport(monkeypatch, make_transport):
    transport = make_transport()
    monkeypatch.setattr("lemica_client.client.open_transport", lambda url: transport)
    return transport


@pytest.fixture
def plug_in(monkeypatch):
    """Make `lemica.commands` hold exactly one entry."""

    def install(name, value):
        entry = EntryPoint(name, value, commands.GROUP)
        monkeypatch.setattr(commands, "entry_points", lambda group: [entry])

    return install


def test_help_names_every_command_and_option():
    text = run("--help").output
    assert all(name in text for name in ("generate", "plan", "serve"))
    text = run("generate", "--help").output
    for name in ("budget", "seed", "output", "url", "model", "guidance-scale", "num-inference-steps", "timeout-s"):
        assert f"--{name}" in text


def test_version_is_that_of_the_package():
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"lemica {metadata.version('lemica')}\n")


def test_generate_writes_the_servers_file_and_a_summary(transport, tmp_path):
    done = run("generate", "a cat", "--seed", "7", "--budget", "fast")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "video.mp4").read_bytes() == b"a file"
    got = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in done.stdout.splitlines()[1:])
    assert done.stdout.splitlines()[0] == "video.mp4"
    assert got == {
        "seed": "7",
        "budget": "fast",
        "computed steps": "3 of 10",
        "seconds": "1.50",
        "predicted error": "0.125",
    }


def test_a_quality_warning_of_the_server_is_shown(transport):
    assert "larger --budget" not in run("generate", "a cat").stdout
    transport.info = transport.info | {"quality_warning": True}
    assert "larger --budget" in run("generate", "a cat").stdout


def test_generate_sends_what_was_given_and_asks_for_the_file_only(transport):
    arguments = "--guidance-scale 2.5 --num-inference-steps 20 --negative-prompt blur --model other --timeout-s 9"
    assert run("generate", "a cat", "-o", "cat.gif", *arguments.split()).exit_code == 0
    model, inputs, outputs, timeout_s = transport.requests[0]
    assert {name: tensor.array.item() for name, tensor in inputs.items()} == {
        "prompt": b"a cat",
        "guidance_scale": 2.5,
        "num_inference_steps": 20,
        "negative_prompt": b"blur",
        "file_format": b"gif",
    }
    assert (model, outputs) == ("other", ["video_file", "info"])
    assert 8 < timeout_s <= 9


@pytest.mark.server
@pytest.mark.parametrize("has_stream", [True, False])
def test_a_terminal_shows_the_steps_if_the_server_streams(stand_in_url, tmp_path, has_stream):
    arguments = ["generate", "x", "--url", stand_in_url, "--num-inference-steps", "6", "-o", "x.gif"]
    model = "toy" if has_stream else "latte_like"
    program = [sys.executable, "-m", "lemica_client", *arguments, "--model", model]
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        program, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert ("6/6" in done.stderr, (tmp_path / "x.gif").exists()) == (has_stream, True)


@pytest.mark.server
def test_ctrl_c_stops_a_streamed_request_on_the_server(stand_in_url, tmp_path, ends):
    program = [sys.executable, "-m", "lemica_client", "generate", "x", "--url", stand_in_url, "--model", "toy"]
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    with subprocess.Popen(
        [*program, "--num-inference-steps", "3000"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
    ) as process:
        seen = b""
        while b"/3000" not in seen:
            piece = os.read(process.stderr.fileno(), 4096)
            assert piece, seen
            seen += piece
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert ends() == ["cancelled"]
    assert not list(tmp_path.iterdir())


def test_an_error_that_was_never_measured_is_said_so(transport):
    transport.info = {"predicted_error": None}
    assert "not measured" in run("generate", "a cat").stdout


def test_json_is_the_whole_of_stdout(transport):
    done = run("generate", "a cat", "--json")
    assert json.loads(done.stdout) == {"file": "video.mp4", **transport.info}


def test_a_server_that_says_little_gets_a_short_summary(transport):
    transport.info = {}
    assert run("generate", "a cat").stdout.split() == ["video.mp4"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequestError("seed: no"), 2),
        (errors.ServerError("no [model]"), 1),
        (errors.ServerUnavailableError("queue full"), 1),
        (errors.RequestTimeoutError("too slow"), 1),
        (errors.RequestCancelledError("cancelled"), 1),
        (errors.ServerError("failed\n\nAt:\n  model.py(3): execute"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(transport, error, code, tmp_path):
    transport.raises = error
    done = run("generate", "a cat")
    assert done.exit_code == code
    text = " ".join(str(error).split())
    assert done.stderr == (f"error: {text}\n" if text else "cancelled\n")
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("generate", "a cat"), ("plan",), ("ui",)])
@pytest.mark.parametrize(
    ("known", "said"),
    [
        (["a", "b"], "; the server has a, b: see --model"),
        ([], "; the server has no model ready: see --model"),
        (errors.ServerError("not allowed here"), ""),
    ],
)
def test_an_unknown_model_is_refused_with_those_that_there_are(transport, command, known, said):
    transport.raises, transport.known_models = errors.ModelNotFoundError("no [model]"), known
    done = run(*command)
    assert (done.exit_code, done.stderr) == (1, f"error: no [model]{said}\n")


@pytest.mark.server
def test_a_real_server_tells_its_models(stand_in_url):
    done = run("plan", "--url", stand_in_url, "--model", "nosuch")
    assert done.exit_code == 1
    assert re.search(r"nosuch.*; the server has large, latte_like, toy, toy_stream: see --model\n$", done.stderr)


@pytest.mark.parametrize("output", ["video.avi", "no/such/folder/video.mp4"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(transport, output):
    done = run("generate", "a cat", "-o", output)
    assert (done.exit_code, transport.requests) == (2, [])
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("command", [("generate", "a cat"), ("plan",), ("ui",)])
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_without_a_server_every_command_says_what_to_do(command, scheme, unused_port):
    url = f"{scheme}://127.0.0.1:{unused_port}"
    done = run(*command, "--url", url)
    assert done.exit_code == 1
    start, reason, advice = re.fullmatch(r"(error: .*?): (.*?); (.*)\n", done.stderr).groups()
    assert start == f"error: no server can be reached at {url}"
    assert re.fullmatch(r"(\[Errno 111\] )?Connection refused( \(111\))?", reason)
    assert advice == "start one with `lemica serve`, or give another's address with --url or LEMICA_URL"


def test_a_url_that_cannot_be_read_is_an_invalid_request():
    done = run("generate", "a cat", "--url", "ftp://127.0.0.1:21")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def test_plan_shows_the_budgets(transport):
    entries = {
        "3": {"steps": [0, 4, 9], "predicted_error": 0.25, "errors": [0.25, 0.125]},
        "4": {"steps": [0, 3, 5, 9], "predicted_error": None, "errors": None},
        "5": {"steps": [0, 1, 3, 5, 9], "predicted_error": 0.0625, "errors": [0.0625] * 4},
        "7": {"steps": [0, 1, 2, 3, 4, 5, 9], "predicted_error": 0.0, "errors": [0.0] * 6},
    }
    plan = {"names": {"fast": 3, "slow": 4}, "entries": entries, "provenance": {"num_inference_steps": 10}}
    transport.config = {"parameters": {"cache_plan": {"string_value": json.dumps(plan)}}}
    text = run("plan").stdout
    assert all(word in text for word in ("fast", "slow", "3 of 10", "0 4 9", "0 3 5 9", "0.25", "not measured"))
    assert "budgets: full, 3 to 5, 7" in text
    assert json.loads(run("plan", "--json").stdout) == plan


def test_plan_tells_of_the_command_that_draws_what_it_prints(transport, tmp_path):
    served = published_plan("HunyuanVideo-1.5").to_json()
    transport.config = {"parameters": {"cache_plan": {"string_value": served}}}
    asked, shown = run("plan").stderr.partition(": the same with ")[2].rstrip("\n").split(", then ")
    as_json = run("plan", *asked.removesuffix(" > plan.json").split())
    assert (as_json.exit_code, as_json.stderr) == (0, "")
    (tmp_path / "plan.json").write_text(as_json.stdout)
    drawn = CliRunner().invoke(planner, shown.removeprefix("lemica-planner ").split())
    assert drawn.exit_code == 0, drawn.output
    assert "lemica-planner show" in run("plan", "--help").stdout


def test_plan_of_a_model_without_one(transport):
    transport.config = {}
    assert "no cache plan" in run("plan").stdout
    assert json.loads(run("plan", "--json").stdout) is None


def greet(name: str, loudly: bool = False) -> None:
    """Say hello."""
    typer.echo(f"hello {name.upper() if loudly else name}")


def need_a_package() -> None:
    """Import what is not there, as late as it gets."""
    import no_such_package  # noqa: F401


def test_another_packages_command_takes_its_own_options(plug_in):
    plug_in("greet", f"{__name__}:greet")
    assert run("greet", "ann", "--loudly").stdout == "hello ANN\n"
    assert "Say hello." in run("--help").output
    assert "--loudly" in run("greet", "--help").output


def test_a_command_whose_package_is_missing_names_the_extra(plug_in):
    plug_in("serve", "lemica_backend.no_such_module:serve")
    done = run("serve", "--http-port", "8000", "folder")
    assert done.exit_code == 1
    assert re.fullmatch(
        r"error: lemica serve .*pip install '\.\[backend,server\]' in a checkout of lemica\n", done.stderr
    )
    assert "'.[backend,server]'" in re.sub(r"[\s│]+", " ", run("--help").output)


def test_serve_on_a_client_only_install_names_the_extra(monkeypatch):
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    done = run("serve", "--model-repository", ".")
    assert done.exit_code == 1
    assert re.fullmatch(
        r"error: lemica serve .*'torch'.*pip install '\.\[backend,server\]' in a checkout of lemica\n", done.stderr
    )


def test_a_package_that_is_missing_only_later_is_reported_alike(plug_in):
    plug_in("late", f"{__name__}:need_a_package")
    done = run("late")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "no_such_package" in done.stderr


def test_a_broken_command_leaves_the_others_alone(plug_in, transport):
    plug_in("broken", "lemica_client.cli:no_such_name")
    assert run("--help").exit_code == 0
    assert run("generate", "a cat").exit_code == 0
    assert "no_such_name" in run("broken").stderr


def test_our_own_commands_win(plug_in, transport):
    plug_in("generate", f"{__name__}:greet")
    assert run("generate", "a cat").exit_code == 0
    assert len(transport.requests) == 1


def test_an_unknown_command_is_a_usage_error():
    assert run("nonsense").exit_code == 2


def test_ui_without_gradio_names_the_extra(transport, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "lemica_client.ui", raising=False)
    done = run("ui")
    assert done.exit_code == 1
    assert re.fullmatch(
        r"error: lemica ui needs gradio: .*pip install '\.\[ui\]' in a checkout of lemica\)\n", done.stderr
    )
