"""Finds the snippets of the documents: the fenced blocks, with the lines where they begin."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One block of a page; `output` is the `text` block that follows it."""

    page: str
    line: int
    language: str
    code: str
    output: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The documents that people read, relative to the repository."""
    found = [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        REPOSITORY / "client_js" / "README.md",
        REPOSITORY / "examples" / "react" / "README.md",
    ]
    return sorted(str(each.relative_to(REPOSITORY)) for each in found)


def snippets_of(page: str) -> list[Snippet]:
    """The blocks of a page in their order, each output with the block before it."""
    text = (REPOSITORY / page).read_text("utf-8")
    found: list[Snippet] = []
    end = 0
    for match in _FENCED.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        follows = found and not text[end : match.start()].strip()
        end = match.end()
        if match[2] == "text" and follows:
            before = found.pop()
            found.append(Snippet(page, before.line, before.language, before.code, match[3]))
        else:
            found.append(Snippet(page, line, match[2], match[3]))
    return found
