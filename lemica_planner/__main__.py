"""The command ``lemica-planner``; says what to install where the command line's libraries are missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from lemica_planner.cli import app  # noqa: PLC0415 - the package itself needs numpy only
    except ModuleNotFoundError as error:
        sys.exit(
            f"lemica-planner needs {error.name}, which is not installed: "
            "pip install '.[planner]' in a checkout of lemica"
        )
    app()


if __name__ == "__main__":
    main()
