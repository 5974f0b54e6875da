"""Kits as AES zips: opened by their own password, and nowhere but in their own folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import pyzipper
from tests.unit.provision.offices import opened

from hansa.errors import HansaError, InputError, RefusedError
from hansa.provision import kits
from hansa.provision.kits import Made
from hansa.runtime.config import load_kit, load_site


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {kit.name: kit for kit in opened(tmp_path_factory.mktemp("office"), zips=True).kits}


def zipped(made: dict[str, Made], name: str) -> tuple[Path, str]:
    kit = made[name]
    assert kit.zip is not None
    assert kit.password is not None
    return kit.zip, kit.password


@pytest.mark.parametrize("name", ["north", "alice", "server"])
def test_a_zip_opens_with_its_password_to_the_same_kit(made: dict[str, Made], tmp_path: Path, name: str) -> None:
    path, password = zipped(made, name)
    folder = kits.unpack(path, tmp_path, password=password)
    assert folder == tmp_path / name
    assert load_kit(folder).name == name  # whole, and its secrets are its owner's only
    if name == "north":
        assert load_site(load_kit(folder)).sandbox == "basic"


def test_no_other_password_opens_it(made: dict[str, Made], tmp_path: Path) -> None:
    path, password = zipped(made, "north")
    for wrong in ("", password[:-1], password.upper(), zipped(made, "south")[1]):
        with pytest.raises(RefusedError, match="does not open"):
            kits.unpack(path, tmp_path, password=wrong)
    assert not list(tmp_path.iterdir())


def test_every_entry_is_encrypted_with_aes_256_and_no_secret_stands_in_clear(made: dict[str, Made]) -> None:
    path, password = zipped(made, "alice")
    with pyzipper.AESZipFile(path) as archive:
        assert {(entry.flag_bits & 1, entry.wz_aes_strength) for entry in archive.infolist()} == {(1, 3)}
    with zipfile.ZipFile(path) as plain, pytest.raises((RuntimeError, NotImplementedError)):
        plain.read("alice/key.pem", pwd=password.encode())  # the old, broken encryption does not open it
    assert b"PRIVATE KEY" not in path.read_bytes()


def test_passwords_differ_have_a_hundred_bits_and_are_kept_nowhere(made: dict[str, Made]) -> None:
    passwords = [kit.password for kit in made.values()]
    assert len(set(passwords)) == len(passwords) == 5
    assert all(password is not None and len(password.replace("-", "")) == 20 for password in passwords)
    office = made["north"].folder.parents[1]
    for path in office.rglob("*"):
        if path.is_file():
            assert not any(str(password).encode() in path.read_bytes() for password in passwords)
    assert not any(str(kit.password) in repr(kit) for kit in made.values())


def archive(path: Path, *names: str, size: int = 1) -> Path:
    with pyzipper.AESZipFile(path, "w", encryption=pyzipper.WZ_AES, compression=pyzipper.ZIP_DEFLATED) as out:
        out.setpassword(b"p")
        for name in names:
            out.writestr(name, b"0" * size)
    return path


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a/..", "..", "a/b/c", "a\\b/c", "evil", "a/"])
def test_an_archive_that_would_write_elsewhere_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "kit.zip", "a/good", name)
    with pytest.raises(RefusedError, match="outside the kit") as caught:
        kits.unpack(path, tmp_path / "out", password="p")  # noqa: S106  of this archive
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_archives_that_are_no_kit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    wrong = [tmp_path / "text.zip", archive(tmp_path / "empty.zip"), archive(tmp_path / "two.zip", "a/b", "c/d")]
    wrong += [
        archive(tmp_path / "bomb.zip", "a/b", size=20_000_000),
        archive(tmp_path / "many.zip", *(f"a/{i}" for i in range(101))),
    ]
    wrong += [tmp_path / "none.zip"]
    for path in wrong:
        with pytest.raises(HansaError) as caught:
            kits.unpack(path, tmp_path / "out", password="p")  # noqa: S106  of these archives
        assert path.name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_kit_is_not_unpacked_over_another(made: dict[str, Made], tmp_path: Path) -> None:
    path, password = zipped(made, "north")
    kits.unpack(path, tmp_path, password=password)
    with pytest.raises(InputError, match="there already"):
        kits.unpack(path, tmp_path, password=password)


def test_a_new_kit_takes_an_old_ones_place_and_leaves_what_is_the_sites(made: dict[str, Made], tmp_path: Path) -> None:
    path, password = zipped(made, "north")
    folder = kits.unpack(path, tmp_path, password=password)
    (folder / "site.toml").write_text("[data]\n")
    (folder / "data.py").write_text("x = 1\n")
    (folder / "state").mkdir()
    for name in ("certificate.pem", "key.pem", "renewed.pem"):  # of before: they are of no use any more
        (folder / name).write_text("old")
    assert kits.replace(path, folder, password=password) == folder
    assert (folder / "site.toml").read_text() == "[data]\n"
    assert sorted(each.name for each in folder.iterdir() if each.name in ("state", "data.py")) == ["data.py", "state"]
    kit = load_kit(folder)
    assert (kit.name, kit.enrolled) == ("north", False)
    kit.bootstrap()


def test_a_kit_takes_the_place_of_its_own_kind_only(made: dict[str, Made], tmp_path: Path) -> None:
    path, password = zipped(made, "north")
    folder = kits.unpack(path, tmp_path, password=password)
    other, its = zipped(made, "south")
    with pytest.raises(RefusedError, match="two parties"):
        kits.replace(other, folder, password=its)
    with pytest.raises(InputError, match="no start-up kit"):
        kits.replace(path, tmp_path, password=password)
    with pytest.raises(RefusedError, match="does not open"):
        kits.replace(path, folder, password="wrong")  # noqa: S106
    (folder / "project.pub").write_text("00" * 32)
    with pytest.raises(RefusedError, match="two projects"):
        kits.replace(path, folder, password=password)


def test_a_zip_that_is_not_there_is_wrong_input_and_no_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; at path .*nort\.zip"):
        kits.unpack(tmp_path / "nort.zip", tmp_path, password="x")  # noqa: S106  nothing is opened with it
