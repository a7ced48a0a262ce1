"""A hook for mkdocs.yml: README is the first page, and what pages link to outside of docs/ is in the site, too."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
LINK = re.compile(r"\]\(([^)#:\s]+)((?:#[^)]*)?)\)")
TREE = "tree"  # where files of the tree are in the site


def place_of(page: str, link: str) -> str | None:
    """Where in the site a link of a page leads that is no page of docs/; None where it is one."""
    path = posixpath.normpath(posixpath.join("" if page == "README.md" else "docs", link))
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{TREE}/{path}" + (".txt" if path.endswith((".md", "Containerfile")) else "")


def on_files(files: Files, config: Any) -> Files:
    """Adds the first page, and whatever a page links to."""
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    for name in ["README.md", *pages]:
        page = name.removeprefix("docs/")
        for link, _ in LINK.findall((ROOT / name).read_text()):
            place = place_of(page, link)
            source = ROOT / (place or "").removeprefix(f"{TREE}/").removesuffix(".txt")
            if place and place.startswith(TREE) and source.is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, content=source.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """With links as they lead in the site."""
    name = "README.md" if page.file.src_uri == "index.md" else page.file.src_uri
    return LINK.sub(lambda found: f"]({place_of(name, found[1])}{found[2]})", markdown)
