"""How a resident process is told to end.

What belongs here: signals. What stays out: what each process still does when it ends.
"""

import signal
import threading


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set from now on: a resident process then comes to its own end."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
