"""A hook for mkdocs.yml: pages outside of docs/ are in the site, too, and so is every file that a page links to."""

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
ELSEWHERE = {  # pages that are not in docs/, and where they are in the site
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "bench/README.md": "bench.md",
}


def source_of(page: str) -> str:
    """Which file of the tree a page of the site is."""
    return next((source for source, name in ELSEWHERE.items() if name == page), f"docs/{page}")


def place_of(source: str, link: str) -> str:
    """Where in the site a link in a file of the tree leads."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{TREE}/{path}" + (".txt" if path.endswith((".md", "Containerfile")) else "")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are elsewhere, and whatever a page links to."""
    sources = [*ELSEWHERE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    for page in sources:
        for link, _ in LINK.findall((ROOT / page).read_text()):
            place = place_of(page, link)
            file = ROOT / place.removeprefix(f"{TREE}/").removesuffix(".txt")
            if place.startswith(TREE) and file.is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, content=file.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """With links as they lead in the site."""
    source = source_of(page.file.src_uri)
    return LINK.sub(lambda found: f"]({place_of(source, found[1])}{found[2]})", markdown)
