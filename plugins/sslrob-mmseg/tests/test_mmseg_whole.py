"""Whole models from configs and checkpoints, against mmseg's own preprocessing and inference."""

import pytest
import torch
from sslrob_mmcv.bridge import build, models, read_config
from sslrob_mmseg import resolve_reference
from sslrob_mmseg.task import Segmentation

from sslrob.errors import SslrobError
from sslrob.zoo import Victim, Weights

SEGFORMER = """
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", {preprocessor}),
    backbone=dict(type="MixVisionTransformer", in_channels=3, embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
        patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], init_cfg=dict(type="Pretrained", checkpoint="https://example.org/never.pth")),
    decode_head=dict(type="SegformerHead", in_channels=[8, 8, 16, 16], in_index=[0, 1, 2, 3], channels=8, num_classes=5,
        norm_cfg=dict(type="SyncBN", requires_grad=True), align_corners=False),
    test_cfg={test})
"""
CONFIGS = {
    "rgb": ("mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, size=(32, 32)", "dict(mode='whole')"),
    "bgr": ("mean=[103.53, 116.28, 123.675], std=[1.0, 2.0, 1.5]", "dict(mode='whole')"),
    "sliding": ("mean=[127.5], std=[127.5], bgr_to_rgb=True", "dict(mode='slide', crop_size=(32, 48), stride=(20, 30))"),
    "padded": ("mean=[10, 20, 30], std=[50, 60, 70], pad_val=1, test_cfg=dict(size_divisor=32)", "None"),
    "plain": ("", "dict()"),
}


def write(folder, name="rgb"):
    """A config and a checkpoint of random weights for it, without BatchNorm's starting point, which would hide mistakes."""
    preprocessor, test = CONFIGS[name]
    config, checkpoint = folder / f"{name}.py", folder / f"{name}.pth"
    config.write_text(SEGFORMER.format(preprocessor=preprocessor, test=test))
    torch.manual_seed(0)
    model = build(models("mmseg"), read_config(str(config), "mmseg"))
    state = {
        key: 0.3 * torch.rand_like(tensor) + 0.1 if tensor.is_floating_point() else tensor for key, tensor in model.state_dict().items()
    }
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "meta": {"epoch": 3}}, checkpoint)
    return config, checkpoint, state


def whole(config, checkpoint, *, classes=(), settings=None, **entry):
    """A segmentor, with the checkpoint of a zoo entry."""
    weights = checkpoint and Weights(file=checkpoint, **entry)
    return Segmentation().whole(f"mmseg:{config}", weights=weights, settings=settings or {}, classes=classes)


def theirs(config, state, image):
    """Logits of an image in [0, 1] by mmseg's way: a BGR file of 0 to 255, data_preprocessor, predict."""
    from mmseg.structures import SegDataSample

    parts = read_config(str(config), "mmseg")
    parts["test_cfg"] = {"mode": "whole", **(parts.get("test_cfg") or {})}
    model = build(models("mmseg"), parts).eval()
    model.load_state_dict(state)
    size = tuple(image.shape[1:])
    sample = SegDataSample(metainfo={"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0] * 4})
    with torch.no_grad():
        data = model.data_preprocessor({"inputs": [image.flip(0) * 255], "data_samples": [sample]}, False)
        return model.predict(**data)[0].seg_logits.data


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_mmsegs(tmp_path, name):
    config, checkpoint, state = write(tmp_path, name)
    image = torch.randint(256, (3, 45, 71), generator=torch.Generator().manual_seed(0)).float() / 255
    victim = whole(config, checkpoint)
    logits = victim(image[None])[0]
    assert logits.std() > 1e-3
    torch.testing.assert_close(logits, theirs(config, state, image), rtol=1e-5, atol=1e-5)
    assert victim.backbone is None
    assert not victim.training


def test_an_image_alone_is_an_image_in_a_batch(tmp_path):
    victim = whole(*write(tmp_path, "sliding")[:2])
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0), requires_grad=True)
    masks = [torch.full((40, 50), label, dtype=torch.uint8) for label in (0, 4)]
    for loss in victim.losses:
        together = victim.loss(victim(images), masks, loss, 0.5)
        alone = torch.cat([victim.loss(victim(images[i : i + 1]), masks[i : i + 1], loss, 0.5) for i in range(2)])
        torch.testing.assert_close(together, alone)
        (gradient,) = torch.autograd.grad(together.sum(), images)
        assert gradient.flatten(1).any(1).all()


def test_references_of_mmseg_are_recognised():
    record = resolve_reference("victim", "mmseg:configs/fcn.py")
    assert isinstance(record, Victim)
    assert (record.task, record.reference) == ("segmentation", "mmseg:configs/fcn.py")
    assert resolve_reference("victim", "mmdet:fcos") is None
    assert resolve_reference("backbone", "mmseg:configs/fcn.py") is None


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.popitem(), "1 missing: decode_head.fusion_conv.bn"),
        (lambda state: state.update({"neck.weight": torch.zeros(1)}), "1 unexpected: neck.weight"),
        (
            lambda state: state.update({"decode_head.conv_seg.weight": torch.zeros(7, 8, 1, 1)}),
            r"1 of another shape: decode_head.conv_seg.weight \(7, 8, 1, 1\) for \(5, 8",
        ),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(written, tmp_path, change, message):
    config, _, state = written
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(SslrobError, match=message) as caught:
        whole(config, tmp_path / "other.pth")
    assert "config" in caught.value.hint


def test_counters_that_old_checkpoints_lack_are_no_matter(written, tmp_path):
    config, _, state = written
    torch.save({name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    assert whole(config, tmp_path / "old.pth")


@pytest.mark.parametrize(
    ("reference", "weights", "message"),
    [
        ("{config}", None, "names a config, which holds no weights"),
        ("{config}", "missing.pth", "no weights at '.*missing.pth'"),
        ("{config}", "text.pth", "cannot read '.*text.pth'"),
        ("{folder}/missing.py", "text.pth", "no config '.*missing.py'"),
        ("no-such-config", "text.pth", "no config 'no-such-config'"),
        ("{folder}/strange.py", "text.pth", "the model of '.*strange.py' cannot be built: KeyError: .*Oracle"),
        ("{folder}/head.py", "text.pth", "describes no segmentor but a 'ResNet'"),
        ("{folder}/rgb_files.py", "text.pth", "rgb_to_bgr"),
    ],
)
def test_wrong_references_are_explained(written, tmp_path, reference, weights, message):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "strange.py").write_text("model = dict(type='Oracle', decode_head=dict())\n")
    (tmp_path / "head.py").write_text("model = dict(type='ResNet', depth=18)\n")
    (tmp_path / "rgb_files.py").write_text(SEGFORMER.format(preprocessor="rgb_to_bgr=True", test="dict()"))
    named = reference.format(config=written[0], folder=tmp_path)
    with pytest.raises(SslrobError, match=message) as caught:
        whole(named, weights and tmp_path / weights)
    assert caught.value.hint


def test_settings_are_refused(written):
    with pytest.raises(SslrobError, match="no setting 'width'"):
        whole(*written[:2], settings={"width": 3})


def test_every_word_of_a_weights_entry_counts(written, tmp_path):
    config, _, state = written
    torch.save({**{f"student.{name}": tensor for name, tensor in state.items()}, "student.ema.x": torch.zeros(2)}, tmp_path / "more.pth")
    victim = whole(config, tmp_path / "more.pth", drop_prefix="student.", ignore=("ema.",))
    loaded = victim.segmentor.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_classes_must_be_the_models(written, tmp_path):
    config, checkpoint, state = written
    names = ("road", "Traffic Light", "car", "sky", "tree")
    assert whole(config, checkpoint, classes="abcde")  # the checkpoint names none
    with pytest.raises(SslrobError, match=r"rgb\.py' has 5 classes, but the data set has 4"):
        whole(config, checkpoint, classes=names[:4])
    torch.save({"state_dict": state, "meta": {"CLASSES": list(names)}}, tmp_path / "named.pth")
    assert whole(config, tmp_path / "named.pth", classes=("road", "traffic_light", *names[2:]))
    with pytest.raises(SslrobError, match=r"class 3 of .* is 'sky', but 'tree' in the data set") as caught:
        whole(config, tmp_path / "named.pth", classes=(*names[:3], "tree", "sky"))
    assert "another order" in caught.value.note


def test_a_description_is_of_the_model_and_not_of_its_file(written, tmp_path):
    text = Segmentation.described(f"mmseg:{written[0]}")
    copy = tmp_path / "copy.py"
    copy.write_text(written[0].read_text().replace("never.pth", "other.pth"))  # weights that are never loaded
    assert Segmentation.described(f"mmseg:{copy}") == text
    copy.write_text(written[0].read_text().replace("123.675", "123.676"))
    assert Segmentation.described(f"mmseg:{copy}") != text
    with pytest.raises(SslrobError, match="no config 'nowhere'") as caught:
        Segmentation.described("mmseg:nowhere")
    assert caught.value.hint
