"""Check that the generated reference is current."""

from tests.docs.reference import PAGE, reference


def test_reference_is_what_the_models_say() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run: python -m tests.docs.reference"
