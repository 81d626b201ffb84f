"""Reads the metrics of a server, as Prometheus would."""

import re
import time
import urllib.request

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TYPE = re.compile(r"^# TYPE (lemica_\w+) (\w+)$", re.MULTILINE)


class Scrape:
    """One answer of /metrics."""

    def __init__(self, server):
        with urllib.request.urlopen(server.metrics_url, timeout=60) as answer:
            self._text = answer.read().decode()
        self.kinds = dict(_TYPE.findall(self._text))
        self._series = [
            (name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SERIES.findall(self._text)
        ]

    def __str__(self):
        return "\n".join(
            f"{name} {labels} {value}" for name, labels, value in self._series if value and "lemica" in name
        )

    def labels(self, name):
        return [labels for each, labels, _ in self._series if each == name]

    def value(self, name, **wanted):
        """Return the sum over all series with these labels; there has to be one."""
        found = [value for each, labels, value in self._series if each == name and wanted.items() <= labels.items()]
        assert found, f"{name} {wanted} is not exported"
        return sum(found)

    def by(self, name, *by, **wanted):
        """Return the values that are not 0, by some labels."""
        return {
            tuple(labels[key] for key in by): value
            for each, labels, value in self._series
            if each == name and wanted.items() <= labels.items() and value
        }


def scrape_until(server, holds):
    """Scrape until something holds; return the scrape in which it does."""
    give_up_at = time.monotonic() + 120
    while not holds(scrape := Scrape(server)):
        assert time.monotonic() < give_up_at, f"never true of {scrape}"
        time.sleep(0.2)
    return scrape
