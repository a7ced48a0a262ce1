"""Files that a policy asks to be watched: a change is put in force once it has settled, and only if it is good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.policy.kumo.files import matching
from gateway.service import watching
from gateway.service.watching import PERIOD, SETTLING, Watch, as_loaded
from tests.gateway_process import INIT, Gateway, wait_until
from tests.policy_tools import Clock, said


class Watched:
    """A directory with files that are watched."""

    def __init__(self, folder: Path, **read: bytes) -> None:
        self.folder = folder
        self.clock = Clock()
        self.globs = [f"{folder}/**/*.{{lua,toml}}"]
        self.read: dict[str, bytes | None] = {str(folder / name.replace("_", ".")): text for name, text in read.items()}

    def load(self) -> None:
        self.watch = Watch(as_loaded(self.globs, self.read), self.clock)

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    def later(self) -> list[str]:
        """What has changed after a while in which nothing else happens."""
        found: list[str] = []
        for _ in range(3):
            self.clock.now += PERIOD
            found += self.watch.changed()
        return [os.path.relpath(path, self.folder) for path in found]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    one = Watched(tmp_path)
    one.write("a.lua", "a")
    one.write("more/b.toml", "b")
    one.write("c.txt", "c")
    one.load()
    return one


def test_nothing_has_changed_at_first(watched: Watched) -> None:
    assert watched.later() == []


def test_a_change_is_told_once(watched: Watched) -> None:
    watched.write("more/b.toml", "other")
    assert watched.later() == ["more/b.toml"]
    assert watched.later() == []


def test_what_comes_and_goes_is_a_change(watched: Watched) -> None:
    watched.write("new/x.lua", "x")
    (watched.folder / "a.lua").unlink()
    assert watched.later() == ["a.lua", "new/x.lua"]


def test_other_files_and_other_times_are_none(watched: Watched) -> None:
    watched.write("c.txt", "other")
    os.utime(watched.folder / "a.lua", ns=(1, 1))
    watched.write("more/b.toml", "b")
    assert watched.later() == []


def test_a_change_counts_when_it_has_settled(watched: Watched) -> None:
    watched.clock.now += PERIOD
    watched.write("a.lua", "one")
    assert watched.watch.changed() == []
    for number in range(10):
        watched.clock.now += SETTLING
        watched.write("a.lua", "x" * (number + 10))
        assert watched.watch.changed() == []
    watched.clock.now += SETTLING
    assert len(watched.watch.changed()) == 1


def test_a_change_while_the_policy_was_loaded_is_seen(tmp_path: Path) -> None:
    one = Watched(tmp_path, a_lua=b"before")
    one.write("a.lua", "after")
    one.load()
    assert one.later() == ["a.lua"]


def test_looks_take_a_small_part_of_the_time(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(globs: Any) -> dict[str, Any]:
        watched.clock.now += 1
        return {}

    monkeypatch.setattr(watching, "_looks", slow)
    watched.watch = Watch(watching.WatchedFiles(("x",)), watched.clock)
    watched.clock.now += PERIOD
    watched.watch.changed()
    before = watched.clock.now
    watched.clock.now += watching.SHARE - 2
    assert watched.watch.changed() == []
    assert watched.clock.now == before + watching.SHARE - 2


def test_globs_have_alternatives(tmp_path: Path) -> None:
    for name in ("a.lua", "b.toml", "c.json", "d.txt"):
        (tmp_path / name).write_text("")
    names = sorted(os.path.basename(path) for path in matching("{a,b,d}.{lua,{toml,json}}", str(tmp_path)))
    assert names == ["a.lua", "b.toml"]
    assert matching("a.{lua", str(tmp_path)) == set()


def test_a_policy_can_look_at_what_is_watched(tmp_path: Path) -> None:
    (tmp_path / "a.lua").write_text("")
    assert said(f"""
        kumo.set_config_monitor_globs {{ '{tmp_path}/*.lua', '{tmp_path}/*' }}
        result = kumo.eval_config_monitor_globs()
    """) == [str(tmp_path / "a.lua")]


def test_a_change_is_put_in_force_everywhere_and_a_bad_one_is_not(start: Any, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("code = 550")
    gateway: Gateway = start(
        f"""{INIT}
        kumo.set_config_monitor_globs {{ '{tmp_path}/*.toml' }}
        local rules = kumo.toml_load '{rules}'
        kumo.on('smtp_server_mail_from', function() kumo.reject(rules.code, 'as the file says') end)
        """,
        "--workers",
        "2",
    )

    def codes() -> set[int]:
        found = set()
        for _ in range(6):
            with gateway.smtp() as client:
                client.ehlo()
                found.add(client.mail("a@a.example")[0])
        return found

    assert codes() == {550}
    rules.write_text("code = 551")
    gateway.announced(epoch=2)
    assert codes() == {551}
    rules.write_text("code = ")
    wait_until(lambda: "reload failed" in gateway.diagnostics(), "the bad edit is refused")
    assert codes() == {551}
    rules.write_text("code = 552")
    gateway.announced(epoch=3)
    assert codes() == {552}
    assert gateway.diagnostics().count("reload: ") == 3
