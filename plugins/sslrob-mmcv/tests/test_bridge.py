"""Between images in [0, 1] and OpenMMLab's models: preparation, configs, building."""

import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModule, ImgDataPreprocessor
from mmengine.registry import DefaultScope, Registry
from sslrob_mmcv.bridge import ConfigError, Maps, Prepare, build, read_config, register
from torch import nn

BGR = {"mean": [103.5, 116.3, 123.7], "std": [1.0, 2.0, 3.0]}


class Toy(nn.Module):
    """One map, and an `init_weights` that must not be called."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))

    def forward(self, images):
        return SimpleNamespace(maps=[self.conv(images - self.mean)])

    def init_weights(self):
        raise AssertionError("the backbone was initialised again")


class Model(BaseModule):
    """What OpenMMLab's models do with their backbone's config."""

    def __init__(self, backbone, registry):
        super().__init__(init_cfg=None)
        self.scope = DefaultScope.get_current_instance().scope_name
        self.backbone = registry.build(backbone)
        self.norm = nn.SyncBatchNorm(4)
        print("a model that talks")

    def forward(self, images):
        return self.norm(self.backbone(images)[0])


@pytest.fixture
def registry():
    made = Registry("toy models", scope="toyscope", locations=[])
    made.register_module(module=Model)
    return made


def test_padding_in_pixel_space_has_the_colour_that_becomes_zero_and_leaves_pixels_alone():
    backbone, images = Toy(), torch.rand(2, 3, 21, 33)
    padded = Prepare.before(backbone, 16)(images)
    assert padded.shape == (2, 3, 32, 48)
    assert torch.equal(padded[..., :21, :33], images)
    assert not (padded - backbone.mean)[..., 21:, :].any()
    assert not (padded - backbone.mean)[..., 33:].any()


def test_images_that_fit_are_passed_on():
    images = torch.rand(1, 3, 32, 16)
    assert torch.equal(Prepare.before(Toy(), 16)(images), images)


def test_gradients_flow_to_every_pixel_and_only_through_them():
    images = torch.rand(1, 3, 5, 7, dtype=torch.double, requires_grad=True)
    prepare = Prepare(torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 3, 4]), scale=255.0, swap=True, divisor=4)
    assert torch.autograd.gradcheck(prepare, images)


@pytest.mark.parametrize(
    "config", [{"mean": [123.7, 116.3, 103.5], "std": [58.0, 57.0, 56.0], "bgr_to_rgb": True}, BGR, {}, {"pad_value": 7.0, **BGR}]
)
def test_whole_models_get_what_their_preprocessor_makes_of_a_bgr_file(config):
    theirs = ImgDataPreprocessor(pad_size_divisor=8, **config)
    images = torch.randint(256, (2, 3, 13, 17)).float() / 255
    expected = theirs({"inputs": [image.flip(0) * 255 for image in images]})["inputs"]
    assert torch.equal(Prepare.like(theirs, {"pad_size_divisor": 8, **config})(images), expected)


def test_test_time_padding_of_mmseg_is_read():
    prepare = Prepare.like(nn.Module(), {"size_divisor": 64, "test_cfg": {"size_divisor": 16}, "bgr_to_rgb": True})
    assert prepare(torch.rand(1, 3, 20, 20)).shape[2:] == (32, 32)
    prepare = Prepare.like(nn.Module(), {"size": (99, 99), "test_cfg": {"size": (24, 10)}, "bgr_to_rgb": True})
    assert prepare(torch.rand(1, 3, 20, 20)).shape[2:] == (24, 20)


def test_models_of_images_read_as_rgb_are_refused():
    with pytest.raises(ConfigError, match="rgb_to_bgr"):
        Prepare.like(nn.Module(), {"rgb_to_bgr": True})


def test_building_keeps_the_backbone_the_scope_and_the_output(registry, capsys):
    backbone, before = Toy(), DefaultScope.get_current_instance()
    weights = backbone.conv.weight.clone()
    model = build(registry, {"type": "Model", "backbone": {"type": "sslrob", "backbone": backbone}, "registry": registry})
    assert model.scope == "toyscope"
    assert DefaultScope.get_current_instance() is before
    printed = capsys.readouterr()
    assert "a model that talks" in printed.err
    assert "a model that talks" not in printed.out
    assert isinstance(model.backbone, Maps)
    assert model.backbone.backbone is backbone
    assert torch.equal(backbone.conv.weight, weights)
    assert not isinstance(model.norm, nn.SyncBatchNorm)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 4, 4, 4)


def test_registering_twice_does_no_harm(registry):
    register(registry)
    register(registry)
    assert registry.get("sslrob") is Maps


def test_configs_lose_whatever_loads_weights(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(
        "data_preprocessor = dict(type='P', bgr_to_rgb=True)\n"
        "model = dict(type='M', pretrained='open-mmlab://resnet50', backbone=dict(type='B', init_cfg=dict(type='Pretrained', checkpoint='x.pth')),\n"
        "    heads=[dict(type='H', init_cfg=[dict(type='Normal', std=0.1), dict(type='Pretrained', checkpoint='y.pth')])])\n"
    )
    model = read_config(str(file), "mmengine")
    assert model.to_dict() == {
        "type": "M",
        "pretrained": None,
        "backbone": {"type": "B", "init_cfg": None},
        "heads": [{"type": "H", "init_cfg": [{"type": "Normal", "std": 0.1}]}],
        "data_preprocessor": {"type": "P", "bgr_to_rgb": True},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "describes no model"),
        ("model = dict(depth=3)", "describes no model"),
        ("model = 1 / 0", "does not run: ZeroDivisionError"),
    ],
)
def test_a_config_without_a_model_is_refused(tmp_path, text, message):
    (tmp_path / "config.py").write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        read_config(str(tmp_path / "config.py"), "mmengine")


@pytest.mark.parametrize("reference", ["no-such-config", "no/such/file.py", "../setup.py", "*", "**/*.py", "[", ".", ""])
def test_a_missing_config_is_named(reference):
    with pytest.raises(ConfigError, match=re.escape(f"no config '{reference}'")):
        read_config(reference, "mmengine")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that ships configs as OpenMMLab's do."""
    configs = tmp_path / "toymm/.mim/configs"
    for name in ("fcn/fcn_r18.py", "fcn/same.py", "psp/same.py"):
        (configs / name).parent.mkdir(parents=True, exist_ok=True)
        (configs / name).write_text(f"model = dict(type='{name}')\n")
    (tmp_path / "toymm/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return "toymm"


@pytest.mark.parametrize("reference", ["fcn_r18", "fcn_r18.py", "fcn/fcn_r18"])
def test_shipped_configs_are_found_by_name(package, reference):
    assert read_config(reference, package).type == "fcn/fcn_r18.py"


def test_a_name_that_two_shipped_configs_have_is_refused(package):
    with pytest.raises(ConfigError, match=r"several configs of toymm are named 'same': 'fcn/same\.py', 'psp/same\.py'"):
        read_config("same", package)
    assert read_config("psp/same", package).type == "psp/same.py"


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="'no_such_package' is not installed"):
        read_config("fcn", "no_such_package")


def test_an_absolute_path_is_not_looked_for_among_shipped_configs(tmp_path):
    with pytest.raises(ConfigError, match="no config"):
        read_config(str(tmp_path / "missing.py"), "mmengine")
