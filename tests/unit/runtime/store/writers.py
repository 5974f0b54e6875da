"""A process that writes to a store for ever and says on stdout what it has been told is durable; it is there to be killed.

Run as a script: `blobs | events | outbox`, and a folder.
"""

import itertools
import sys
from pathlib import Path


def blobs(folder: Path) -> None:
    from hansa.runtime.store.blobs import FileBlobs

    store = FileBlobs(folder)
    for number in itertools.count():
        sys.stdout.write(f"{store.put([b'%d ' % number] * 60_000).digest}\n")
        sys.stdout.flush()


def events(folder: Path) -> None:
    from hansa.runtime.store.events import Entry, SqliteEvents

    store = SqliteEvents(folder / "events.sqlite")
    for number in itertools.count():
        both = store.commit({"a": [Entry("n", {"number": number})] * 2, "b": [Entry("n", {"number": number})]}, at=float(number))
        sys.stdout.write(f"{both['a'][1].hash} {both['b'][0].hash}\n")
        sys.stdout.flush()


def outbox(folder: Path) -> None:
    from hansa.runtime.client.outbox import Key, Outbox

    store = Outbox(folder / "outbox.sqlite")
    start = store.pending()[-1].key.seq + 1 if store.pending() else 1
    for seq in itertools.count(start):
        digest = f"{seq:064x}"
        store.put(Key("run", seq, 1, 0), {"loss": seq}, digest, memory={"one": digest, "two": digest})
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    {"blobs": blobs, "events": events, "outbox": outbox}[sys.argv[1]](Path(sys.argv[2]))
