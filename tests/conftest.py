"""What every test needs."""

import signal

# A script that starts the tests in its background has SIGINT ignored, and so would every process that they start:
# a handler here gives the default back to them.
signal.signal(signal.SIGINT, signal.default_int_handler)
