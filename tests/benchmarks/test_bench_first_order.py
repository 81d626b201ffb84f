"""What forecasts leave of the error of reuse, from a file of `lemica-planner steps`."""

import json

import pytest

from benchmarks import bench_first_order


def way(operator, values, *, plan="even", steps=(0, 2, 4)):
    entry = {"steps": list(steps), "operators": [operator] * 2}
    made = {"sampler": {"name": "own"}, "num_steps": 5, "plan": plan, "entry": entry}
    measured = {"full": {"latents_l1": values, "lpips": [1.0, 1.0]}, "run": {"time_in_forwards": [3.0, 3.0]}}
    return {"way": made, "cost": 3, "values": measured}


def test_the_share_is_a_mean_over_prompts_of_the_ratio_to_reuse(tmp_path, capsys):
    plain = {"way": {"sampler": {"name": "own"}, "num_steps": 3}, "cost": 3, "values": {}}
    ways = [plain, way("residual", [1.0, 2.0]), way("residual-linear", [0.5, 0.2]), way("noise", [9.0, 9.0], plan="x")]
    path = tmp_path / "steps.json"
    path.write_text(json.dumps({"samples": [["a", 0], ["b", 1]], "ways": ways}))
    bench_first_order.main(path)
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (row["sampler"], row["operator"], row["forwards"]) == ("own, 5 steps", "residual-linear", 3)
    assert row["of_reuse"] == pytest.approx((0.5 + 0.1) / 2)
    assert row["interval"] == pytest.approx((0.1, 0.5))
