"""The scrape example, the alert rules and the dashboard: their form, their runbook, and what promtool says of them.

That they ask for what a real server exports is in tests/server/test_server_metrics.py.
"""

import json
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
SCRAPE = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "lemica.json"
DURATION = re.compile(r"\d+[smhd]")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool; Debian's is in prometheus")


@pytest.fixture
def rules():
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]


@pytest.fixture
def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_every_alert_is_whole_and_says_what_to_do(rules):
    guide = (ROOT / "docs" / "operator.md").read_text()
    runbook = re.findall(r"^\| `(Lemica\w+)` \| .{20,} \| .{20,} \|$", guide, re.MULTILINE)
    assert [rule["alert"] for rule in rules] == runbook
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert DURATION.fullmatch(rule.get("for", "0s"))
        assert is_balanced(rule["expr"])


def test_the_scrape_example_reads_the_rules_and_names_the_job_that_they_ask_for(rules):
    scrape = yaml.safe_load(SCRAPE.read_text())
    assert scrape["rule_files"] == [ALERTS.name]
    (job,) = scrape["scrape_configs"]
    asked = {name for rule in rules for name in re.findall(r'job="(\w+)"', rule["expr"])}
    assert asked == {job["job_name"]}


def test_the_dashboards_panels_have_ids_places_and_queries(panels):
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [cell for panel in panels for cell in cells_of(panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    assert all(column < 24 for column, _ in cells)
    for panel in panels:
        assert panel["description"]
        assert panel["targets"]
        assert all(is_balanced(target["expr"]) for target in panel["targets"])


def test_the_dashboard_has_nothing_that_grafanas_own_schema_does_not_know():
    """Grafana Labs' Python types are made from the schema; what they do not know is lost on the way through them."""
    reason = "no types of Grafana: pip install grafana-foundation-sdk"
    types = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=reason)
    plugins, encoder = (import_module(f"grafana_foundation_sdk.cog.{name}") for name in ("plugins", "encoder"))
    plugins.register_default_plugins()
    given = json.loads(DASHBOARD.read_text())
    kept = json.loads(encoder.JSONEncoder().encode(types.Dashboard.from_json(given)))
    # the text that lists of variables show is saved by every Grafana, and not in its schema
    assert [name for name in lost_or_changed(given, kept) if not name.endswith("/definition")] == []


def lost_or_changed(given, kept, name=""):
    if isinstance(given, dict) and isinstance(kept, dict):
        pairs = [(f"{name}/{key}", value, kept.get(key)) for key, value in given.items()]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = [(f"{name}[{at}]", *pair) for at, pair in enumerate(zip(given, kept, strict=True))]
    else:
        return [] if given == kept else [name]
    return [found for path, one, other in pairs for found in lost_or_changed(one, other, path)]


def cells_of(place):
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return [(column, row) for column in columns for row in rows]


def is_balanced(expression):
    closes, open_ones = {")": "(", "]": "[", "}": "{"}, []
    for sign in re.sub(r'"[^"]*"', "", expression):
        if sign in closes.values():
            open_ones.append(sign)
        elif sign in closes and (not open_ones or open_ones.pop() != closes[sign]):
            return False
    return not open_ones


@needs_promtool
def test_promtool_takes_the_rules_and_the_configuration():
    promtool("check", "rules", ALERTS)
    promtool("check", "config", SCRAPE)


@needs_promtool
def test_promtool_takes_the_dashboards_queries(panels, tmp_path):
    queries = [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel["targets"]]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path):
    cases = (Path(__file__).parent / "alerts_test.yaml").read_text()
    path = tmp_path / "alerts_test.yaml"
    path.write_text(cases.replace("- ALERTS", f"- {ALERTS}"))
    promtool("test", "rules", path)


def promtool(*arguments):
    outcome = subprocess.run(["promtool", *map(str, arguments)], check=False, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
