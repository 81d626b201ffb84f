"""One model repository that holds the model under test and its peers, all with the same weights, plan and settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lemica_backend.config import MODEL_FILE, load_config
from lemica_backend.replay import newest_version
from lemica_planner import CachePlan, Provenance, uniform_steps
from lemica_planner.config_writer import apply_plan
from lemica_planner.plan import default_names

ENGINE, BATCHES, ALONE = "lemica", "whole_batches", "one_at_a_time"
ONE_PLAN = "whole_batches_one_plan"
_MODEL_PY = Path(__file__).with_name("model.py")
_WAITING = 100_000  # as many may wait at the engine as at the peers, whose queue in Triton has no limit

# max_queue_delay_microseconds stays 0: where requests wait they are batched anyway, and an idle server would only be
# slower. The timeout is Triton's way to give up what waited too long, the nearest that it has to a deadline.
_CONFIG = """\
backend: "python"
max_batch_size: {max_batch_size}
input {{ name: "prompt" data_type: TYPE_STRING dims: 1 }}
input {{ name: "budget" data_type: TYPE_STRING dims: 1 optional: true }}
input {{ name: "seed" data_type: TYPE_INT64 dims: 1 optional: true }}
output {{ name: "video" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] }}
output {{ name: "info" data_type: TYPE_STRING dims: 1 }}
instance_group {{ kind: KIND_CPU count: 1 }}
dynamic_batching {{
  max_queue_delay_microseconds: 0
  default_queue_policy {{ timeout_action: REJECT allow_timeout_override: true }}
}}
parameters {{ key: "version_dir" value {{ string_value: {version_dir} }} }}
parameters {{ key: "one_plan" value {{ string_value: "{one_plan}" }} }}
"""


def make_repository(folder: Path, model: Path, *, max_batch_size: int = 4, steps: int | None = None) -> None:
    """Write the models.

    Parameters
    ----------
    folder : Path
        The new repository.
    model : Path
        A model folder of the backend `lemica`, with a plan in its config.pbtxt.
    max_batch_size : int
        Of the whole-request batches.
    steps : int, optional
        Denoising steps by default, with a plan of evenly spaced steps for them: only times are of use then.
    """
    version = _copy_model(model, folder / ENGINE, steps)
    for name, most in ((BATCHES, max_batch_size), (ONE_PLAN, max_batch_size), (ALONE, 1)):
        (folder / name / "1").mkdir(parents=True)
        shutil.copy(_MODEL_PY, folder / name / "1")
        one_plan = json.dumps(name == ONE_PLAN)
        text = _CONFIG.format(max_batch_size=most, version_dir=json.dumps(str(version)), one_plan=one_plan)
        (folder / name / "config.pbtxt").write_text(text, encoding="utf-8")


def _copy_model(model: Path, target: Path, steps: int | None) -> Path:
    """Copy the folder but for its weights, which are linked; return its version folder."""
    source = newest_version(model)
    version = target.resolve() / "1"
    version.mkdir(parents=True)
    shutil.copy(model / "config.pbtxt", target)
    config = load_config(source / MODEL_FILE)
    limits = config.limits.model_copy(update={"max_queue": _WAITING, "timeout_s": 1e5})
    given = {"num_inference_steps": steps} if steps else {}
    defaults = config.defaults.model_copy(update=given)
    update = {"limits": limits, "defaults": defaults, "weights": str((source / config.weights).resolve())}
    text = config.model_copy(update=update).model_dump_json(indent=2, exclude_defaults=True)
    (version / MODEL_FILE).write_text(text, encoding="utf-8")
    if steps:
        apply_plan(target / "config.pbtxt", _uniform_plan(steps))
    return version


def _uniform_plan(steps: int) -> CachePlan:
    """Return every budget from a fifth of the steps on, spaced evenly."""
    budgets = range(max(2, steps // 5), steps)
    paths = {budget: uniform_steps(steps, budget) for budget in budgets}
    return CachePlan.from_steps(Provenance(num_inference_steps=steps), paths, names=default_names(steps, budgets))
