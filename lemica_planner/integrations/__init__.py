"""Plans in other libraries. Each module here imports its library; importing this package imports none."""
