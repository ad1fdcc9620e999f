"""Synthetic checkpoints of ResNets, each as the code of its repository saves it: names, wrappers, and all that lies beside the weights.

Every function writes a file and returns what it put there.  Sources, beside the functions, are the original repositories'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import published_pickle as named
import torch
from published_draws import CLASSES, STEM, Draws, State, module

OUT = 32 * STEM  # numbers in an embedding


def torchvision(path: Path, *, fc: bool) -> State:
    """torchvision's own; without `fc` as Barlow Twins, VICReg and DINO save `backbone.state_dict()`."""
    draws = Draws(1)
    state = draws.resnet() | (draws.linear("fc", CLASSES, OUT) if fc else {})
    named.save(module(state), path)
    return state


def swav(path: Path, *, wrapped: bool, prototypes: int = 1, stem: int = STEM) -> State:
    """facebookresearch/swav main_swav.py, main_deepclusterv2.py and main_selav2.py, whose heads have several prototypes.

    The rates of a schedule in an array are left in the optimizer as numpy numbers.
    """
    draws = Draws(2)
    state = draws.resnet("module.", stem=stem)
    state |= draws.mlp("module.projection_head", (32 * stem, 24, 16), bias=True, last="missing")
    for i in range(prototypes):
        state[f"module.prototypes.prototypes{i}.weight" if prototypes > 1 else "module.prototypes.weight"] = draws.normal(11, 16)
    content: dict[str, Any] = module(state)
    if wrapped:
        content = {
            "epoch": 400,
            "state_dict": module(state),
            "optimizer": draws.sgd(state, named.number(0.0048)),
            "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 1}},
        }
    named.save(content, path, old=True)
    return state


def swav_linear(path: Path) -> State:
    """facebookresearch/swav eval_linear.py with its pooling over the whole map, which leaves the linear layer alone to be learned."""
    draws = Draws(97)
    state = draws.linear("module.linear", CLASSES, OUT)
    scheduler = {"T_max": 100, "eta_min": 0, "base_lrs": [0.3], "last_epoch": 100, "_step_count": 101, "_last_lr": [0.0]}
    content = {"epoch": 100, "state_dict": module(state), "optimizer": draws.sgd(state), "scheduler": scheduler}
    named.save({**content, "best_acc": torch.tensor([75.3])}, path, device="cuda:0", old=True)
    return state


def moco(path: Path, *, mlp: bool) -> State:
    """facebookresearch/moco main_moco.py; version 2 has an MLP."""
    draws = Draws(3)
    state: State = {}
    for encoder in ("encoder_q", "encoder_k"):
        state |= draws.resnet(f"module.{encoder}.")
        if mlp:
            state |= draws.linear(f"module.{encoder}.fc.0", OUT, OUT) | draws.linear(f"module.{encoder}.fc.2", 16, OUT)
        else:
            state |= draws.linear(f"module.{encoder}.fc", 16, OUT)
    state |= {"module.queue": draws.normal(16, 64), "module.queue_ptr": torch.tensor([32])}
    content = {"epoch": 200, "arch": "resnet50", "state_dict": module(state), "optimizer": draws.sgd(state)}
    named.save(content, path, device="cuda:0", old=True)
    return state


def moco_v3(path: Path) -> State:
    """facebookresearch/moco-v3 main_moco.py."""
    draws = Draws(4)
    state: State = {}
    for encoder in ("base_encoder", "momentum_encoder"):
        state |= draws.resnet(f"module.{encoder}.") | draws.mlp(f"module.{encoder}.fc", (OUT, 24, 16), last="plain")
    state |= draws.mlp("module.predictor", (16, 24, 16), last="missing")
    content = {
        "epoch": 1000,
        "arch": "resnet50",
        "state_dict": module(state),
        "optimizer": draws.sgd(state),  # LARS, which keeps its momentum under the name `mu`
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 12},
    }
    for moments in content["optimizer"]["state"].values():
        moments["mu"] = moments.pop("momentum_buffer")
    named.save(content, path, device="cuda:0")
    return state


def linear(path: Path, *, under: str, layer: str = "fc", arch: str = "resnet50") -> State:
    """main_lincls.py of facebookresearch/moco-v3 and simsiam: the whole frozen network beside the layer, `under` pretraining's prefix."""
    draws = Draws({"module.base_encoder.": 4, "module.encoder.": 5}[under])
    body = draws.resnet()  # the same numbers as in pretraining: the first that it drew
    fc = Draws(99).linear(layer, CLASSES, OUT)
    state = {f"module.{name}": tensor for name, tensor in (body | fc).items()}
    content = {
        "epoch": 90,
        "arch": arch,
        "state_dict": module(state),
        "best_acc1": torch.tensor(74.6),
        "optimizer": draws.sgd(fc, 0.0),
    }
    named.save(content, path, device="cuda:0")
    return state


def simsiam(path: Path) -> State:
    """facebookresearch/simsiam main_simsiam.py and simsiam/builder.py."""
    draws = Draws(5)
    state = draws.resnet("module.encoder.")
    state |= draws.mlp("module.encoder.fc", (OUT, OUT, OUT, 16), last="plain") | {"module.encoder.fc.6.bias": draws.normal(16)}
    state |= (
        draws.linear("module.predictor.0", 8, 16, bias=False)
        | draws.norm("module.predictor.1", 8)
        | draws.linear("module.predictor.3", 16, 8)
    )
    optimizer = draws.sgd(state)
    optimizer["param_groups"].append({**optimizer["param_groups"][0], "fix_lr": True, "params": []})
    named.save({"epoch": 100, "arch": "resnet50", "state_dict": module(state), "optimizer": optimizer}, path, device="cuda:0", old=True)
    return state


def vissl(path: Path, *, form: str, supervised: bool = False) -> State:
    """facebookresearch/vissl hooks/log_hooks.py CheckpointHook around ClassyVision's ClassificationTask.get_classy_state.

    Args:
        form: nest, as VISSL saves; model_state_dict or flat, as its scripts convert (extra_scripts/convert_vissl_to_torchvision.py).
        supervised: the head is a classifier, not SimCLR's projector.
    """
    draws = Draws(6)
    trunk = draws.resnet("_feature_blocks.")
    heads = draws.linear("0.clf.0", CLASSES if supervised else OUT, OUT)
    heads |= {} if supervised else draws.linear("1.clf.0", 16, OUT)
    meter = {
        "name": "accuracy_list_meter",
        "num_meters": 1,
        "topk_values": [1, 5],
        "meter_names": ["heads"],
        "meters": [{"sample_count": torch.tensor(9)}],
    }
    task = {
        "train": True,
        "base_model": {"model": {"trunk": module(trunk), "heads": module(heads)}, "meta": {"trunk": {}, "heads": {}}},
        "meters": [meter],
        "optimizer": {"optim": draws.sgd(trunk | heads)},
        "phase_idx": 100,
        "train_phase_idx": 99,
        "num_updates": 31200,
        "losses": [8.1, 7.9, 7.7],
        "hooks": {"LogLossLrEtaHook": {}, "CheckpointHook": {}},
        "loss": {},
    }
    content: dict[str, Any] = {
        "phase_idx": 100,
        "iteration": 31200,
        "loss": module({"info_criterion.pos_mask": draws.normal(4, 8)}),
        "iteration_num": 311,
        "train_phase_idx": 99,
        "classy_state_dict": task,
        "type": "consolidated",
    }
    flat = {name.removeprefix("_feature_blocks."): tensor for name, tensor in trunk.items()}
    named.save({"nest": content, "model_state_dict": {"model_state_dict": module(trunk)}, "flat": flat}[form], path, old=True)
    return trunk | heads


def robust(path: Path) -> State:
    """MadryLab/robustness train.py of attacker.py's AttackerModel in a DataParallel: the network stands in it twice."""
    draws = Draws(7)
    net = draws.resnet() | draws.linear("fc", CLASSES, OUT)
    colours = {
        "new_mean": torch.tensor([0.485, 0.456, 0.406])[:, None, None],
        "new_std": torch.tensor([0.229, 0.224, 0.225])[:, None, None],
    }
    state: State = {}
    for place, colour in (("model.", "normalizer."), ("attacker.model.", "attacker.normalize.")):
        state |= {f"module.{colour}{name}": tensor for name, tensor in colours.items()}
        state |= {f"module.{place}{name}": tensor for name, tensor in net.items()}
    content = {
        "model": module(state),
        "optimizer": draws.sgd(net),
        "schedule": {"step_size": 30, "gamma": 0.1, "base_lrs": [0.1], "last_epoch": 89, "_step_count": 90, "_last_lr": [1e-4]},
        "epoch": 90,
        "amp": None,
        "nat_prec1": torch.tensor(55.6),
        "adv_prec1": torch.tensor(33.4),
    }
    named.save(content, path, device="cuda:0", old=True)
    return state
