"""The pages as a site: `make docs` builds it, and every link leads somewhere."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent


def built(tree: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [f"{sysconfig.get_path('scripts')}/mkdocs", "build", "--site-dir", str(site)]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_every_page_is_in_the_site_and_what_they_link_to(tmp_path: Path) -> None:
    done = built(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    pages |= {"index.html", "security.html", "changelog.html", "bench.html"}
    assert pages <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "tree/deploy/quickstart.lua").read_bytes() == (ROOT / "deploy/quickstart.lua").read_bytes()


def test_a_link_that_leads_nowhere_fails(tmp_path: Path) -> None:
    for name in ("docs", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "README.md", "SECURITY.md", "CHANGELOG.md", "bench"):
        (tmp_path / name).symlink_to(ROOT / name)
    with open(tmp_path / "docs/policy.md", "a") as page:
        page.write("\n[a](nothing.md) and [b](spool.md#nothing)\n")
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line]
    assert len(warnings) == 2 and "nothing.md" in warnings[0] and "#nothing" in warnings[1]


def test_the_pictures_that_pages_show_are_there_and_what_their_scripts_take() -> None:
    shown = {
        Path(target).name
        for page in (ROOT / "docs").glob("*.md")
        for target in re.findall(r"\]\((pictures/[^)]+)\)", page.read_text())
    }
    taken = set(runpy.run_path(str(ROOT / "deploy/site/pictures.py"))["SIZES"])
    taken |= {f"dashboard-{path.stem}.png" for path in (ROOT / "deploy/grafana").glob("*.json")}
    assert shown == taken == {path.name for path in (ROOT / "docs/pictures").iterdir()}
    for path in (ROOT / "docs/pictures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 300_000
