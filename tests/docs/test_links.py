"""Check that the links of the documents lead to files and headings that exist."""

import re

import pytest

from tests.docs.snippets import REPOSITORY, pages

_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([\w.-]+))?\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", pages())
def test_links_of_the_page_lead_somewhere(page: str) -> None:
    text = _FENCED.sub("", (REPOSITORY / page).read_text("utf-8"))
    for path, anchor in _LINK.findall(text):
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert target.exists(), f"{page} links to {path}"
        if anchor:
            assert anchor in _anchors(target.read_text("utf-8")), f"{page}: #{anchor} of {path}"


def _anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
