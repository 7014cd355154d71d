"""The list of settings in the documentation is the list that the server has."""

from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from client_sdk.contract import ErrorCode
from server.settings import Settings, env_variable

DOCS = Path(__file__).parent.parent.parent / "docs"


def table() -> str:
    """Every setting with its default and its meaning, as `docs/settings.md` shows them."""
    parts = []
    for section, field in Settings.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        parts.append(f"## {section}\n\n{model.__doc__}\n")
        parts.append("| setting | default | meaning |\n|---|---|---|")
        for name, each in model.model_fields.items():
            default = each.default
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


def test_the_settings_are_documented_as_they_are() -> None:
    documented = (DOCS / "settings.md").read_text()
    assert documented.endswith(table()), "write the table anew: python -m tests.cli.test_docs"


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_is_explained(code: ErrorCode) -> None:
    assert f"`{code.value}`" in (DOCS / "protocol.md").read_text()


if __name__ == "__main__":
    head = (DOCS / "settings.md").read_text().partition("## auth")[0]
    (DOCS / "settings.md").write_text(head + table())
