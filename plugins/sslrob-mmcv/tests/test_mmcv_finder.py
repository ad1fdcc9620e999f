"""The import hook: last in line, lazy, idempotent, and clear about what is missing."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sslrob_mmcv
import torch
from sslrob_mmcv.finder import ExtensionFinder


def run(code: str, *path: Path) -> str:
    """What a fresh Python prints, with ``path`` before everything else on its module path."""
    lines = "\n".join([f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}", textwrap.dedent(code)])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", lines], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_mmcv(folder: Path) -> Path:
    """A package ``mmcv`` without an extension."""
    package = folder / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("")
    return package


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert run("import sslrob_mmcv; sslrob_mmcv.install(); print({'torch', 'mmcv', 'mmengine', 'numpy'} & set(sys.modules))") == "set()"


def test_installing_again_adds_nothing() -> None:
    code = """
        import sslrob_mmcv
        from sslrob_mmcv.finder import ExtensionFinder
        sslrob_mmcv.install()
        sslrob_mmcv.install()
        print([isinstance(finder, ExtensionFinder) for finder in sys.meta_path].count(True), isinstance(sys.meta_path[-1], ExtensionFinder))
    """
    assert run(code) == "1 True"


def test_only_the_extension_is_served() -> None:
    finder = ExtensionFinder()
    assert finder.find_spec("mmcv._ext", None) is not None
    assert [finder.find_spec(name, None) for name in ("mmcv", "mmcv._ext2", "_ext", "mmcv._ext.nms")] == [None] * 4


def test_a_compiled_extension_wins(tmp_path: Path) -> None:
    (fake_mmcv(tmp_path) / "_ext.py").write_text("origin = 'compiled'\n")
    assert run("import sslrob_mmcv; sslrob_mmcv.install(); import mmcv._ext; print(mmcv._ext.origin)", tmp_path) == "compiled"


def test_without_a_compiled_extension_ours_is_served(tmp_path: Path) -> None:
    fake_mmcv(tmp_path)
    code = """
        import importlib.util
        import sslrob_mmcv
        sslrob_mmcv.install()
        print(importlib.util.find_spec("mmcv._ext").origin)
    """
    assert run(code, tmp_path) == "sslrob_mmcv"


def test_a_broken_compiled_extension_is_not_hidden(tmp_path: Path) -> None:
    (fake_mmcv(tmp_path) / "_ext.py").write_text("raise ImportError('undefined symbol')\n")
    code = """
        import sslrob_mmcv
        sslrob_mmcv.install()
        try:
            import mmcv._ext
        except ImportError as error:
            print(error)
    """
    assert run(code, tmp_path) == "undefined symbol"


def test_a_missing_operator_is_named_when_called() -> None:
    from mmcv.ops import CARAFEPack, nms_rotated

    with pytest.raises(NotImplementedError, match=r"'carafe_forward' of mmcv\.ops .* needs a compiled mmcv .*'pip uninstall mmcv-lite'"):
        CARAFEPack(4, 2)(torch.zeros(1, 4, 4, 4))
    with pytest.raises(NotImplementedError, match="'nms_rotated'"):
        nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)


def test_private_names_do_not_exist() -> None:
    from mmcv import _ext

    assert not hasattr(_ext, "_roi_align")
    assert hasattr(_ext, "carafe_forward")


def test_build_info() -> None:
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    assert (get_compiler_version(), get_compiling_cuda_version()) == ("none (sslrob-mmcv)", "not available")


def test_install_is_the_public_name() -> None:
    assert sslrob_mmcv.__all__ == ["install"]
