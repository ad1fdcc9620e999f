"""APGD, FAB, Square and the whole of AutoAttack against the reference implementation, on a small trained network at equal settings.

The reference is `autoattack` of github.com/fra31/auto-attack, or the same as the package `pyautoattack`.
"""

import pytest

autoattack = pytest.importorskip("autoattack")
