"""Models of timm: maps, every readout, images of any size."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm as library
import torch
from sslrob_backbones.timm import Timm

from sslrob.errors import SslrobError
from sslrob.testing import check_backbone

IMAGES = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0))
SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}


@pytest.fixture(scope="module")
def vit():
    """A plain ViT of timm's and ours, with the same weights."""
    torch.manual_seed(0)
    ours = Timm("test_vit").eval()
    theirs = library.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    theirs.load_state_dict({name.removeprefix("net."): tensor for name, tensor in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize(
    ("model", "settings", "strides"),
    [
        ("test_resnet", {}, (4, 8, 16, 32)),
        ("test_convnext", {}, (4, 8, 16, 32)),
        ("test_efficientnet", {}, (4, 8, 16, 32)),
        ("test_mambaout", {}, (4, 8, 16, 32)),
        ("test_vit", {"readout": "cls4+mean"}, (16,)),
        ("test_vit4", {}, (16,)),
        ("swin_tiny_patch4_window7_224", {"arguments": SWIN}, (4, 8, 16, 32)),
        ("eva02_tiny_patch14_224", {"arguments": {"depth": 1}}, (14,)),
    ],
)
def test_contract(model, settings, strides):
    torch.manual_seed(0)
    net = Timm(model, **settings)
    check_backbone(net, sizes=((64, 64), (73, 105)))
    assert net.strides == strides


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_the_embedding_is_what_the_models_classifier_reads(model):
    torch.manual_seed(0)
    ours = Timm(model).eval()
    taking = {"dynamic_img_size": True} if model == "test_vit" else {}
    theirs = library.create_model(model, num_classes=0, **taking).eval()
    theirs.load_state_dict({name.removeprefix("net."): tensor for name, tensor in ours.state_dict().items()})
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).pooled, theirs(ours.normalised(images)))


@torch.no_grad()
def tokens(vit):
    """What each block leaves behind the final norm: class tokens (n, width), and patches (n, count, width)."""
    ours, theirs = vit
    x = theirs.norm_pre(theirs._pos_embed(theirs.patch_embed(ours.normalised(IMAGES))))
    classes, patches = [], []
    for block in theirs.blocks:
        x = block(x)
        classes.append(theirs.norm(x)[:, 0])
        patches.append(theirs.norm(x)[:, theirs.num_prefix_tokens :])
    return classes, patches


def test_readouts(vit):
    ours, _ = vit
    classes, patches = tokens(vit)
    mean = patches[-1].mean(1)
    expected = {
        "cls": classes[-1],
        "mean": mean,
        "cls+mean": torch.cat((classes[-1], mean), 1),
        "cls4": torch.cat(classes[-4:], 1),  # DINO's linear evaluation of ViT-S
        "cls4+mean": torch.cat((*classes[-4:], mean), 1),  # DINOv2's of four layers
        "cls-mean-pairs": torch.cat((classes[-1].unsqueeze(-1), mean.unsqueeze(-1)), -1).reshape(
            2, -1
        ),  # DINO's of ViT-B, as it is written
    }
    for readout, embedding in expected.items():
        net = Timm("test_vit", readout=readout).eval()
        net.load_state_dict(ours.state_dict())
        with torch.no_grad():
            features = net(IMAGES)
        torch.testing.assert_close(features.pooled, embedding, msg=readout)
        assert net.width == embedding.shape[1]
        grid = patches[-1].transpose(1, 2).reshape(2, -1, 4, 5)
        torch.testing.assert_close(features.maps[0], grid, msg=readout)


def test_the_mean_of_a_convolutional_network_is_that_of_its_coarsest_map():
    net = Timm("test_efficientnet", readout="mean").eval()
    with torch.no_grad():
        features = net(IMAGES)
    torch.testing.assert_close(features.pooled, features.maps[-1].mean((2, 3)))
    assert net.width == 64


def test_pixels_are_normalised_as_the_models_own_weights_want():
    assert Timm("test_vit.r160_in1k").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert Timm("test_efficientnet").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert Timm("test_vit", mean=0, std=1).std.flatten().tolist() == [1, 1, 1]


def test_arguments_reach_the_model():
    assert Timm("test_vit", arguments={"num_heads": 4}).net.blocks[0].attn.num_heads == 4


def test_a_model_of_one_size_says_so():
    net = Timm("beit_base_patch16_224", arguments={"depth": 1, "embed_dim": 12, "num_heads": 1}).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, 224, 224)).maps[0].shape == (1, 12, 14, 14)
        with pytest.raises(SslrobError, match="takes images of 224 × 224 pixels only, not 80 × 64"):
            net(IMAGES)


@pytest.mark.parametrize(
    ("settings", "says", "hint"),
    [
        ({"model": "resnt50"}, "timm has no model 'resnt50'", "did you mean 'resnet50'"),
        ({"model": "test_vit", "arguments": {"colour": 1}}, "timm cannot build 'test_vit'", "correct the arguments"),
        ({"model": "test_vit", "arguments": {"checkpoint_path": "w.pth"}}, "'checkpoint_path' would bring other weights", "leave it out"),
        ({"model": "test_vit.nonsense"}, "timm cannot build 'test_vit.nonsense'", "correct model"),
        ({"readout": "class"}, "no readout is named 'class'", "did you mean 'cls'"),
        ({"model": "test_resnet", "readout": "cls4"}, "has no class token, which readout 'cls4' reads", "or use mean"),
        ({"std": 58}, "std 58 is not in", "divide it by 255"),
    ],
)
def test_what_timm_does_not_have(settings, says, hint):
    with pytest.raises(SslrobError, match=says) as caught:
        Timm(**settings)
    assert hint in caught.value.hint


def test_positions_can_be_stretched_as_dino_does():
    image = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    as_timm = Timm(model="test_vit").eval()
    torch.manual_seed(0)
    as_dino = Timm(model="test_vit", positions="dino").eval()
    assert (as_timm(image).pooled - as_dino(image).pooled).abs().max() > 1e-4
    assert torch.equal(deepcopy(as_dino)(image).pooled, as_dino(image).pooled)
    with pytest.raises(SslrobError, match="no vision transformer with one class token"):
        Timm(model="test_resnet", positions="dino")
    with pytest.raises(SslrobError, match="nobody named 'swin'"):
        Timm(model="test_vit", positions="swin")
