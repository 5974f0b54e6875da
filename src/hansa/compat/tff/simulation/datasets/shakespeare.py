"""`tff.simulation.datasets.shakespeare`: what the characters of Shakespeare's plays say, a client for each."""

from __future__ import annotations

import os
from typing import Any

from hansa.compat.tff.simulation.datasets.client_data import ClientData
from hansa.data import text
from hansa.errors import DataError

_SCENE = """Porter:
Who is at the gate so late in the rain? The lamp is out, and I am old and slow.

Guest:
A friend, who walked all night across the hills. Open the door, I am cold and wet.

Porter:
Friends come by day. Say who sent you, and what you carry under your cloak.

Guest:
Your brother sent me. I carry bread, a letter, and news that you will not like.

Porter:
Then come in and sit by the fire. News that is bad is better heard when warm.

Guest:
The harvest failed in the south. He asks whether you have grain to lend him.

Porter:
I have little, but what I have is his. Tell him so, and stay until the rain ends.

Guest:
You are kinder than they said of you on the road, and the soup smells good.
"""


def load_data(cache_dir: str | None = None) -> tuple[ClientData, ClientData]:
    """The speakers' speeches, to train on and to test on: the last fifth of each speaker's, from ten speeches on.

    Elements are `snippets`, a string. The text is looked for in `cache_dir`, else in the folder that the environment variable
    HANSA_DATA names; see `hansa.data.text.shakespeare`.

    Raises:
        DataError: it is not there.
    """
    return split(text.speeches(text.play(cache_dir or os.environ.get("HANSA_DATA"))))


def get_synthetic() -> ClientData:
    """Two speakers of a short scene: no download, no file."""
    return _clients(text.speeches(_SCENE))


def split(said: dict[str, list[str]]) -> tuple[ClientData, ClientData]:
    """Speeches by speaker in two: to train on, and the last fifth of those who have ten or more.

    Raises:
        DataError: nobody has ten speeches.
    """
    test = {name: speeches[-(len(speeches) // 5) :] for name, speeches in said.items() if len(speeches) >= 10}
    if not test:
        raise DataError("no speaker has ten speeches, of which two are to test on", path="text")
    train = {name: speeches[: len(speeches) - len(test.get(name, ()))] for name, speeches in said.items()}
    return _clients(train), _clients(test)


def _clients(said: dict[str, list[str]]) -> ClientData:
    def create(client_id: str) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices({"snippets": said[client_id]})

    return ClientData(list(said), create)
