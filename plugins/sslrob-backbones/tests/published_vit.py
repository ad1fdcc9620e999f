"""Synthetic checkpoints of vision transformers and of DINO, each as the code of its repository saves it; see `published`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import published_pickle as named
import torch
from published import OUT
from published_draws import CLASSES, STEM, Draws, State, module
from safetensors.torch import save_file

WIDTH, DEPTH = 48, 5  # more blocks than a head reads
SIZE = {"width": WIDTH, "depth": DEPTH, "patch": 8, "grid": 4}


def moco_v3(path: Path) -> State:
    """facebookresearch/moco-v3 main_moco.py with vits.py: the projector takes the place of `head`."""
    draws = Draws(20)
    state: State = {}
    for encoder in ("base_encoder", "momentum_encoder"):
        state |= draws.vit(f"module.{encoder}.", **SIZE) | draws.mlp(f"module.{encoder}.head", (WIDTH, 24, 24, 16), last="plain")
    state |= draws.mlp("module.predictor", (16, 24, 16), last="plain")
    content = {"epoch": 300, "arch": "vit_small", "state_dict": module(state), "optimizer": draws.adam(state), "scaler": {"scale": 65536.0}}
    named.save(content, path)
    return state


def moco_v3_linear(path: Path) -> State:
    """facebookresearch/moco-v3 main_lincls.py: the whole frozen network beside the layer."""
    head = Draws(99).linear("head", CLASSES, WIDTH)
    state = {f"module.{name}": tensor for name, tensor in (Draws(20).vit(**SIZE) | head).items()}
    content = {
        "epoch": 90,
        "arch": "vit_small",
        "state_dict": module(state),
        "best_acc1": torch.tensor(73.2),
        "optimizer": Draws(98).sgd(head),
    }
    named.save(content, path)
    return state


def dino(path: Path, *, arch: str) -> dict[str, Any]:
    """facebookresearch/dino main_dino.py at the end of an epoch.

    The student is in a DistributedDataParallel; so is the teacher where it has batch norms to synchronise, which is resnet50.  The rates
    come from schedules in arrays, and are left in the optimizer as numpy numbers.
    """
    draws = Draws(21)
    body = draws.resnet if arch == "resnet50" else lambda prefix: draws.vit(prefix, **SIZE)
    width = OUT if arch == "resnet50" else WIDTH
    networks: dict[str, State] = {}
    for network in ("student", "teacher"):
        wrapper = "module." if network == "student" or arch == "resnet50" else ""
        state = body(f"{wrapper}backbone.")
        state |= draws.mlp(f"{wrapper}head.mlp", (width, 24, 24, 16), norms=False, bias=True)
        state |= {f"{wrapper}head.last_layer.weight_g": torch.ones(32, 1), f"{wrapper}head.last_layer.weight_v": draws.normal(32, 16)}
        networks[network] = state
    optimizer = draws.adam(networks["student"], named.number(5e-4))
    optimizer["param_groups"][0]["weight_decay"] = named.number(0.4)
    content = {
        **{network: module(state) for network, state in networks.items()},
        "optimizer": optimizer,
        "epoch": 100,
        "args": Namespace(arch=arch, patch_size=8, out_dim=65536, local_crops_scale=(0.05, 0.14), use_fp16=True, dist_url="env://", gpu=0),
        "dino_loss": module({"center": draws.normal(1, 32)}),
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 12},
    }
    named.save(content, path, device="cuda:0")
    return content


def dino_bare(path: Path, *, arch: str) -> State:
    """dino_*_pretrain.pth: the teacher's backbone alone, as hubconf.py reads it."""
    draws = Draws(22)
    state = draws.resnet() if arch == "resnet50" else draws.vit(**SIZE)
    named.save(module(state), path)
    return state


def dino_linear(path: Path, *, width: int) -> State:
    """facebookresearch/dino eval_linear.py; `width` of what the layer reads: 4 tokens of a ViT-S, a token and a mean of a ViT-B."""
    draws = Draws(23)
    state = draws.linear("module.linear", CLASSES, width)
    scheduler = {"T_max": 100, "eta_min": 0, "base_lrs": [0.004], "last_epoch": 100, "_step_count": 101, "_last_lr": [0.0]}
    content = {"epoch": 100, "state_dict": module(state), "optimizer": draws.sgd(state), "scheduler": scheduler, "best_acc": 77.0}
    named.save(content, path)
    return state


def ibot(path: Path) -> State:
    """bytedance/ibot extract_backbone_weights.py, which cuts main_ibot.py's checkpoint to one network's backbone."""
    state = Draws(24).vit(**SIZE)
    named.save({"state_dict": state}, path)
    return state


def msn(path: Path) -> dict[str, Any]:
    """facebookresearch/msn src/msn_train.py: two DistributedDataParallels, each with a projector of named layers for `fc`."""
    draws = Draws(25)
    networks = {}
    for network in ("encoder", "target_encoder"):
        state = draws.vit("module.", **SIZE)
        for i, (into, out) in enumerate([(WIDTH, 24), (24, 24), (24, 16)], 1):
            state |= draws.linear(f"module.fc.fc{i}", out, into) | (draws.norm(f"module.fc.bn{i}", out) if i < 3 else {})
        networks[network] = module(state)
    content = {
        "encoder": networks["encoder"],
        "opt": draws.adam(networks["encoder"]),
        "prototypes": draws.normal(11, 16),
        "target_encoder": networks["target_encoder"],
        "epoch": 800,
        "loss": 4.1,
        "batch_size": 16,
        "world_size": 64,
        "lr": 0.001,
        "temperature": 0.1,
    }
    named.save(content, path)
    return content


def mae(path: Path, *, full: bool) -> State:
    """facebookresearch/mae: the published encoder, or what util/misc.py's save_model leaves of models_mae.py, decoder and all."""
    draws = Draws(26)
    state = draws.vit(**SIZE)
    if full:
        state |= draws.linear("decoder_embed", 24, WIDTH) | {
            "mask_token": draws.normal(1, 1, 24),
            "decoder_pos_embed": draws.normal(1, 17, 24),
        }
        state |= (
            draws.transformer_block("decoder_blocks.0", 24) | draws.layer_norm("decoder_norm", 24) | draws.linear("decoder_pred", 192, 24)
        )
    content: dict[str, Any] = {"model": module(state)}
    if full:
        args = Namespace(model="mae_vit_base_patch16", mask_ratio=0.75, norm_pix_loss=True, output_dir="./output_dir", distributed=True)
        content |= {"optimizer": draws.adam(state), "epoch": 399, "scaler": {"scale": 65536.0}, "args": args}
    named.save(content, path)
    return state


def dinov2(path: Path, *, registers: int = 0, gated: bool = False) -> State:
    """facebookresearch/dinov2 models/vision_transformer.py, strictly loaded by hub/backbones.py; ViT-g has SwiGLU layers (`gated`)."""
    draws = Draws(27)
    state = draws.vit(width=WIDTH, depth=DEPTH, patch=14, grid=3, scaled=True, gated=gated) | {"mask_token": draws.normal(1, WIDTH)}
    if registers:
        state["register_tokens"] = draws.normal(1, registers, WIDTH, std=0.5)
    named.save(module(state), path)
    return state


def dinov2_linear(path: Path, *, layers: int) -> State:
    """facebookresearch/dinov2 hub/classifiers.py: a bare nn.Linear on the class tokens of `layers` blocks and the mean of the patches."""
    linear = Draws(28).linear("", CLASSES, (1 + layers) * WIDTH)
    state = {name.removeprefix("."): tensor for name, tensor in linear.items()}
    named.save(module(state), path)
    return state


def openmmlab(path: Path, *, linear: bool) -> State:
    """mmpretrain's MoCoV3ViT (models/backbones/vision_transformer.py) in mmengine's wrapper; `linear`: under a VisionTransformerClsHead."""
    draws = Draws(29)
    state = {f"backbone.{mm(name)}": tensor for name, tensor in draws.vit(**SIZE).items()}
    if linear:
        state |= Draws(99).linear("head.layers.head", CLASSES, WIDTH)
    else:
        state |= {f"momentum_encoder.module.0.{mm(name)}": tensor for name, tensor in draws.vit(**SIZE).items()}
        state |= {"momentum_encoder.steps": torch.tensor(93600)} | draws.mlp("head.predictor.fc", (16, 24, 16))
    meta = {"epoch": 300, "iter": 93600, "cfg": "model = dict(type='MoCoV3')", "mmengine_version": "0.1.0", "seed": 0}
    named.save({"meta": meta, "state_dict": module(state)}, path)
    return state


def mm(name: str) -> str:
    """What mmpretrain calls a tensor of timm's name."""
    renamed = [("blocks.", "layers."), ("norm1", "ln1"), ("norm2", "ln2"), ("mlp.fc1", "ffn.layers.0.0"), ("mlp.fc2", "ffn.layers.1")]
    for timm, mm in [*renamed, ("patch_embed.proj", "patch_embed.projection"), ("norm.", "ln1.")]:
        name = name.replace(timm, mm)
    return name


def timm(path: Path) -> State:
    """What timm puts on the hub: its own names, the classifier's among them, as safetensors."""
    draws = Draws(30)
    state = draws.resnet(stem=64, inner=STEM) | draws.linear("fc", CLASSES, OUT)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return state
