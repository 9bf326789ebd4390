"""Installed packages: versions and declarations are those that importlib.metadata reads."""

from __future__ import annotations

from importlib import metadata

from runner.system import packages


def test_versions_are_those_of_importlib():
    known = {one.name: one.version for one in reversed(list(metadata.distributions())) if one.name}
    assert {name: packages.version(name) for name in known} == known
    assert packages.version("hydra_core") == packages.version("Hydra-Core") == known["hydra-core"]
    assert packages.version("no-such-package") is None


def test_declarations_are_those_of_importlib(tmp_path, monkeypatch):
    for folder, version, name in (("one", "1.0", "mine"), ("two", "2.0", "mine"), ("two", "2.0", "other")):
        facts = tmp_path / folder / f"acme_{folder}-{version}.dist-info"
        facts.mkdir(parents=True, exist_ok=True)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{folder}\nVersion: {version}\n")
        with (facts / "entry_points.txt").open("a") as file:
            file.write(f"[acme.group]\n{name} = acme_{folder}:make\n" if "mine" in name else f"{name} = acme_{folder}:make\n")
    monkeypatch.syspath_prepend(tmp_path / "two")
    monkeypatch.syspath_prepend(tmp_path / "one")
    found = packages.entry_points("acme.group")
    assert {name: (entry.value, entry.dist.name, entry.dist.version) for name, entry in found.items()} == {
        "mine": ("acme_one:make", "acme-one", "1.0"),
        "other": ("acme_two:make", "acme-two", "2.0"),
    }
    assert packages.entry_points("acme.none") == {}


def test_what_is_installed_meanwhile_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert packages.version("acme-late") is None
    (tmp_path / "acme_late-3.1.dist-info").mkdir()
    assert packages.version("acme-late") == "3.1"


def test_a_version_that_the_name_does_not_tell_is_read(tmp_path, monkeypatch):
    facts = tmp_path / "acme_old.egg-info"
    facts.mkdir()
    (facts / "PKG-INFO").write_text("Metadata-Version: 1.1\nName: acme-old\nVersion: 0.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert packages.version("acme-old") == "0.3"
