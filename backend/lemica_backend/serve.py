"""The command ``lemica serve``: a tritonserver with this backend in the foreground, until a signal ends it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from lemica_backend.errors import LemicaError
from lemica_backend.triton_server import ModelStatus, ServerStartError, TritonServer, describe_failures

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(
    extra_args: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="More arguments for tritonserver.")
    ] = None,
    *,
    model_repository: Annotated[
        Path, typer.Option(help="Folder with one folder for each model.", metavar="DIR")
    ] = Path("model_repository"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port.")] = 8002,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that loading the models may take.")] = 120,
    exit_timeout_s: Annotated[
        int, typer.Option(min=0, help="Seconds that running requests get to finish after a signal.")
    ] = 30,
    strict: Annotated[bool, typer.Option("--strict", help="End when any model fails to load.")] = False,
    log_verbose: Annotated[bool, typer.Option("--log-verbose", help="Triton's verbose log.")] = False,
) -> None:
    """Serve a model repository with Triton until Ctrl-C or SIGTERM.

    Finds a tritonserver on PATH, in /opt/tritonserver, or in the nvidia-pytriton wheel. A model that
    fails to load is reported and does not take the others down. Exits with the server's exit code.
    """
    server = TritonServer(
        model_repository,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        log_verbose=log_verbose,
        exit_timeout_s=exit_timeout_s,
        extra_args=extra_args or (),
    )
    try:
        with _passing_signals_on(server) as was_signalled:
            code = _run(server, timeout_s=timeout_s, strict=strict, was_signalled=was_signalled)
    except LemicaError as error:
        typer.echo(f"lemica serve: {error}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


def _run(server: TritonServer, *, timeout_s: float, strict: bool, was_signalled: Callable[[], bool]) -> int:
    started = time.monotonic()
    with server:
        try:
            models = server.wait_ready(timeout_s)
        except ServerStartError:
            if was_signalled():
                return _exit_code(server.wait())
            raise
        _report(server, models, time.monotonic() - started)
        if strict and not all(model.is_ready for model in models):
            raise ServerStartError("a model failed to load, and --strict was given")
        return _exit_code(server.wait())


def _report(server: TritonServer, models: list[ModelStatus], seconds: float) -> None:
    ready = ", ".join(f"{model.name} (version {model.version})" for model in models if model.is_ready)
    typer.echo(f"lemica serve: ready after {seconds:.1f} s")
    typer.echo(f"  HTTP     http://{server.http_url}")
    typer.echo(f"  gRPC     {server.grpc_url}")
    typer.echo(f"  metrics  {server.metrics_url}")
    typer.echo(f"  models   {ready or 'none yet'}")
    failures = describe_failures(models)
    if failures:
        typer.echo(f"lemica serve: these models failed to load; the others serve:\n{failures}", err=True)


def _exit_code(code: int) -> int:
    """Return what a shell would: 128 + N for an end by signal N."""
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _passing_signals_on(server: TritonServer) -> Iterator[Callable[[], bool]]:
    """Give the signals that should end this process to the server, whose end then ends it."""
    received: list[int] = []

    def pass_on(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        if not server.is_started:
            raise SystemExit(128 + signum)
        # Triton knows no SIGHUP
        server.send_signal(signal.SIGTERM if signum == signal.SIGHUP else signum)

    before = {signum: signal.signal(signum, pass_on) for signum in _PASSED_ON}
    try:
        yield lambda: bool(received)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
