"""Load tests of the real server; ``python -m benchmarks.load --help``, and docs/load_testing.md."""
