"""Tests that the documentation lists all settings and error codes."""

from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from client_sdk.contract import ErrorCode
from server.settings import env_variable, sections

DOCS = Path(__file__).parent.parent.parent / "docs"


def table() -> str:
    """The table of settings, as in `docs/settings.md`."""
    parts = []
    for section, model in sections():
        parts.append(f"## {section}\n\n{model.__doc__}\n")
        parts.append("| setting | default | meaning |\n|---|---|---|")
        for name, each in model.model_fields.items():
            default = each.default
            if isinstance(default, BaseModel):
                # A section of its own.
                continue
            assert default is not PydanticUndefined
            if isinstance(default, tuple):
                default = ",".join(default)
            if isinstance(default, bool):
                default = str(default).lower()
            shown = "" if default in (None, "") else f"`{default}`"
            parts.append(
                f"| `{env_variable(f'{section}.{name}')}` | {shown} | {each.description} |"
            )
        parts.append("")
    return "\n".join(parts)


def test_documentation_lists_the_settings() -> None:
    documented = (DOCS / "settings.md").read_text()
    assert documented.endswith(table()), "regenerate the table: python -m tests.cli.test_docs"


@pytest.mark.parametrize("code", list(ErrorCode))
def test_documentation_explains_every_error_code(code: ErrorCode) -> None:
    assert f"`{code.value}`" in (DOCS / "protocol.md").read_text()


if __name__ == "__main__":
    head = (DOCS / "settings.md").read_text().partition("## auth")[0]
    (DOCS / "settings.md").write_text(head + table())
