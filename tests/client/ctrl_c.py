"""What a user at the keyboard does."""

import signal
import threading


def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
