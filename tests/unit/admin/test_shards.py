"""Each site of a federation on one machine gets its share of the data, by slot."""

from pathlib import Path

import numpy as np
import pytest

from hansa.admin.here import shards
from hansa.admin.here.local import Source, prepare, source
from hansa.core.protocols import Dataset
from hansa.errors import DataError, InputError
from hansa.provision.changes import provision
from hansa.provision.project import Organisation, Person, Project, ServerSection
from hansa.references import load_reference
from hansa.runtime.config import load_kit, load_site

DATA = """\
import numpy as np
from hansa.data.federated import from_arrays

data = from_arrays({name: (np.full((2, 1), k), np.zeros(2)) for k, name in enumerate("abc")}, split=(1, 0, 0))
both = {"first": data, "second": data}
wrong = 7

def made():
    return data
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.py"
    path.write_text(DATA)
    return path


@pytest.mark.parametrize(
    ("reference", "labels"),
    [("{}:data", ["data"]), ("heart={}:data", ["heart"]), ("{}:made", ["made"]), ("{}:both", ["first", "second"])],
)
def test_data_are_known_by_their_label_or_by_their_name(file: Path, reference: str, labels: list[str]) -> None:
    assert sorted(shards.by_label(None, reference.format(file))) == labels


def test_what_is_no_federated_data_is_an_error(file: Path) -> None:
    with pytest.raises(DataError, match="not federated data"):
        shards.by_label(None, f"{file}:wrong")
    with pytest.raises(DataError, match=r"expected a FederatedData; got dict .*leave out heart="):
        shards.by_label(None, f"heart={file}:both")


def test_each_site_s_own_loader_gives_its_own_share(file: Path, tmp_path: Path) -> None:
    local = prepare(tmp_path / "fed", source(None, f"heart={file}:data", folder=None), sites=None)
    assert local.sites == ("site-1", "site-2", "site-3")
    for slot, name in enumerate(local.sites):
        kit = load_kit(local.kits / name)
        reference = load_site(kit).data["heart"]
        load = load_reference(reference, base=kit.folder)
        assert callable(load)
        rows = load()
        assert isinstance(rows, Dataset)
        assert np.asarray(rows.part("train").x).ravel().tolist() == [slot, slot]


def test_the_folder_is_used_again_with_the_same_kits_and_what_its_owner_wrote(file: Path, tmp_path: Path) -> None:
    given = source(None, f"{file}:data", folder=None)
    before = prepare(tmp_path / "fed", given, sites=2)
    key = (before.kits / "site-1" / "key.pem").read_bytes()
    own = before.kits / "site-1" / "site.toml"
    own.write_text('[policy]\nauthors = ["grace"]\n')
    after = prepare(tmp_path / "fed", Source(None, None, None, {}), sites=None)
    assert after == before
    assert (after.kits / "site-1" / "key.pem").read_bytes() == key
    assert load_site(load_kit(after.kits / "site-1")).policy.authors == ("grace",)
    assert list(load_site(load_kit(after.kits / "site-2")).data) == ["data"]
    with pytest.raises(InputError, match="another federation"):
        prepare(tmp_path / "fed", given, sites=3)


def test_another_project_s_folder_is_left_alone(tmp_path: Path) -> None:
    project = Project(
        name="hearts",
        server=ServerSection(host="localhost"),
        organisations=(Organisation(name="Uni"),),
        people=(Person(name="ada", org="Uni", role="project_admin"),),
    )
    provision(project, tmp_path / "fed", now=1_700_000_000.0, zips=False)
    with pytest.raises(InputError, match="another federation"):
        prepare(tmp_path / "fed", Source(None, None, None, {}), sites=2)
