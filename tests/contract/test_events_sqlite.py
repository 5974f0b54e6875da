"""The SQLite file of events keeps the contract of events."""

from pathlib import Path

from hansa.runtime.store.events import Events, SqliteEvents
from hansa.testing.store_contracts import EventsContract


class TestSqliteEvents(EventsContract):
    def events(self, place: Path) -> Events:
        return SqliteEvents(place / "events.sqlite")
