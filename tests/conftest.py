import os
from pathlib import Path

import pytest


@pytest.fixture
def golden():
    """Compare a text that users see with `tests/golden/NAME`; SSLROB_GOLDEN=write writes it anew, to be read and committed."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if os.environ.get("SSLROB_GOLDEN") == "write":
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare
