"""The folder of a federation on one machine: made once, and used again as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.admin.here.local import prepare, source
from hansa.errors import InputError


def test_another_port_than_the_kits_name_is_refused_and_the_same_one_or_none_is_taken(tmp_path: Path) -> None:
    nothing = source(None, None, folder=None)
    made = prepare(tmp_path / "fed", nothing, sites=1, port=18_443)
    assert made.url == "https://127.0.0.1:18443"
    with pytest.raises(InputError, match=r"another port; at path --port; expected 18443; got 18444"):
        prepare(tmp_path / "fed", nothing, sites=None, port=18_444)
    assert prepare(tmp_path / "fed", nothing, sites=None, port=18_443).url == prepare(tmp_path / "fed", nothing, sites=None).url
