"""``python -m lemica_client``: the command line `lemica` where its script is not on PATH."""

from lemica_client.cli import app

app(prog_name="lemica")
