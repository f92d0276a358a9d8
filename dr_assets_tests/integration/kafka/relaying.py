"""The casino's own relay, run until its outbox is out.

What belongs here: that run. What stays out: what it publishes to, and what has to be there then.
"""

import threading
import time

import psycopg

from dr_assets.casino.events import Publisher
from dr_assets.casino.relay import Relay
from dr_assets.casino.session import Session

PATIENCE_S = 180.0


def relayed(dsn: str, publisher: Publisher, *, batch: int = 20) -> Relay:
    """Run a relay until the outbox is out."""
    stop = threading.Event()
    relay = Relay(Session(dsn, stop, reconnect=False), stop, publisher, every_s=0.01, batch=batch)
    thread = threading.Thread(target=relay.run)
    thread.start()
    deadline_s = time.monotonic() + PATIENCE_S
    with psycopg.connect(dsn, autocommit=True) as watch:
        while watch.execute("SELECT count(*) FROM casino.outbox WHERE published_at IS NULL").fetchone() != (0,):
            assert time.monotonic() < deadline_s, "the outbox is not out"
            time.sleep(0.05)
    stop.set()
    thread.join(PATIENCE_S)
    return relay
