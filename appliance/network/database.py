"""Write transactions, one at a time where the database has one writer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from django.db import connection, transaction

_ONE_WRITER = threading.RLock()


@contextmanager
def writing() -> Iterator[None]:
    """A transaction for writes.

    SQLite's second writer sleeps and looks again; within a process, waiting for a lock wakes at once.
    """
    with _ONE_WRITER if connection.vendor == "sqlite" else nullcontext(), transaction.atomic():
        yield
