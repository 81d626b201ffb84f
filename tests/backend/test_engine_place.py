"""Where engines are found, and which fronts find the same one."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lemica_backend.config import load_config
from lemica_backend.engine_place import RUN_DIR_VARIABLE, EnginePlace, Server, remove_run_dir, run_dir
from lemica_backend.errors import ModelLoadError
from lemica_backend.shared_engine import find_engine, front_plan


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 40)  # longer than the address of a socket may be
    folder.mkdir()
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(folder))
    return Server.of_pid(os.getpid())


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "models" / "m")


def make_model(folder, settings=None):
    version = folder / "1"
    (version / "weights").mkdir(parents=True)
    (version / "weights" / "w").write_text("w")
    (version / "model.json").write_text(json.dumps(settings or {"fps": 9}))
    return version


def place(server, version, **changes):
    return EnginePlace.of(server, version, load_config(version / "model.json").model_copy(update=changes))


def test_same_model_same_place_and_everything_else_another(server, model, tmp_path):
    here = place(server, model)
    link = tmp_path / "link"
    link.symlink_to(model.parent)
    assert place(server, link / "1") == here
    assert place(server, model, device="cuda:1") != here
    assert EnginePlace.of(Server(server.pid, server.started + 1), model, load_config(model / "model.json")) != here
    (model / "weights" / "w").write_text("other")
    assert place(server, model) != here


def test_folder_is_private_and_goes_with_the_engine(server, model):
    here = place(server, model)
    listener = here.listen()
    assert [path.stat().st_mode & 0o777 for path in (here.folder, run_dir(server))] == [0o700, 0o700]
    here.connect().close()
    listener.close()
    with pytest.raises(OSError, match="refused"):
        here.connect()
    here.listen().close()  # in place of the dead one's
    here.remove()
    remove_run_dir(server)
    assert not run_dir(server).exists()


def test_folder_that_others_may_enter_is_refused(server, model):
    run_dir(server).mkdir(mode=0o777)
    run_dir(server).chmod(0o777)
    with pytest.raises(ModelLoadError, match="not a folder of this user alone"):
        place(server, model).listen()


def test_lock_keeps_others_waiting(server, model):
    here, order = place(server, model), []

    def other():
        with here.locked():
            order.append("other")

    with here.locked():
        waiting = threading.Thread(target=other)
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join(30)
    assert order == ["first", "other"]


def test_server_is_known_by_more_than_its_process_id():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    server = Server.of_pid(child.pid)
    assert server.is_running()
    assert not Server(child.pid, server.started - 1).is_running()
    child.communicate(b"\n")
    assert not server.is_running()


def test_engine_of_another_model(model, tmp_path):
    stream = tmp_path / "models" / "s" / "1"
    stream.mkdir(parents=True)
    (stream / "model.json").write_text('{"engine": "m"}')
    assert find_engine(stream) == (model, load_config(model / "model.json"), False)
    assert find_engine(model).is_own
    with pytest.raises(ModelLoadError, match="the plan is that of m; put it there"):
        front_plan(find_engine(stream), {"parameters": {"cache_plan": {"string_value": "{}"}}})
    assert front_plan(find_engine(stream), {}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"engine": "gone"}', "engine is 'gone', but there is no"),
        ('{"engine": "s"}', "itself names another model"),
        ('{"engine": "../m"}', "engine: got '../m'"),
        ('{"engine": "m", "fps": 3}', "fps: no such field; allowed are engine"),
        ('{"engine": 3}', "engine: got 3"),
    ],
)
def test_reference_that_leads_nowhere_says_so(model, tmp_path, text, said):
    stream = Path(tmp_path / "models" / "s" / "1")
    stream.mkdir(parents=True)
    (stream / "model.json").write_text(text)
    with pytest.raises(ModelLoadError) as caught:
        find_engine(stream)
    assert said in str(caught.value)
