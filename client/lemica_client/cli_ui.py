"""`lemica ui`: a web page that compares two budgets."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from lemica_client.async_client import AsyncClient
from lemica_client.cli_options import (
    Headers,
    Model,
    TimeoutS,
    TlsCert,
    TlsInsecure,
    TlsKey,
    TlsRoot,
    Url,
    connection_settings,
    open_client,
)
from lemica_client.connection import DEFAULT_URL
from lemica_client.errors import MissingDependencyError


def ui(
    *,
    url: Url = DEFAULT_URL,
    model: Model = "latte_shapes",
    host: Annotated[str, typer.Option(help="Address to serve the page on; the page has no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve the page on.", min=1, max=65535)] = 7860,
    timeout_s: TimeoutS = 600.0,
    header: Headers = None,
    tls_root: TlsRoot = None,
    tls_key: TlsKey = None,
    tls_cert: TlsCert = None,
    tls_insecure: TlsInsecure = False,
) -> None:
    """Serve a page to type a prompt and compare two budgets side by side, with progress and previews."""
    connection = connection_settings(header, tls_root, tls_key, tls_cert, tls_insecure)
    with open_client(url, model, timeout_s, 2, connection) as client:
        budgets = budget_names(client.plan())
    serve = _load()
    serve(partial(AsyncClient, url, model=model, timeout_s=timeout_s, **connection), budgets, host, port)


def budget_names(plan: dict[str, Any] | None) -> list[str]:
    """Return the budgets of a plan by name, most work first.

    Examples
    --------
    >>> budget_names({"names": {"fast": 10, "slow": 25}})
    ['full', 'slow', 'fast']
    """
    names: dict[str, int] = (plan or {}).get("names", {})
    return ["full", *sorted(names, key=lambda name: -names[name])]


def _load() -> Any:
    try:
        from lemica_client.ui import serve  # noqa: PLC0415  (Gradio: an extra of its own)
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            f"lemica ui needs {exc.name}: install the extra `ui` (pip install '.[ui]' in a checkout of lemica)"
        ) from exc
    return serve
