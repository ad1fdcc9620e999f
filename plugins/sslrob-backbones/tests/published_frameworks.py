"""Synthetic checkpoints of frameworks that train many methods, OpenMMLab's and lightly's; see `published`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import published_pickle as named
import torch
from published import OUT
from published_draws import CLASSES, Draws, State, module


def openmmlab(path: Path, *, hub: bool) -> State:
    """mmengine's Runner.save_checkpoint of August 2022, without the optimizer, which mmselfsup's publish_model.py removes.

    Args:
        hub: with the message hub, whose buffers are objects of mmengine; mmpretrain's publish_model.py removes it too.
    """
    draws = Draws(8)
    state = draws.resnet("backbone.")
    state |= draws.linear("neck.fc0", 24, OUT) | draws.norm("neck.bn0", 24) | draws.linear("neck.fc1", 16, 24, bias=False)
    state |= draws.norm("neck.bn1", 16) | draws.linear("head.predictor.fc0", 16, 16)
    state |= (
        draws.resnet("target_net.module.0.") | draws.linear("target_net.module.1.fc0", 24, OUT) | {"target_net.steps": torch.tensor(62500)}
    )
    named.save(_runner(state) | (_hub() if hub else {}), path)
    return state


def openmmlab_linear(path: Path) -> State:
    """The same of a linear evaluation on that backbone."""
    draws = Draws(8)
    state = draws.resnet("backbone.") | Draws(99).linear("head.fc", CLASSES, OUT)
    named.save(_runner(state), path)
    return state


def _runner(state: State) -> dict[str, Any]:
    meta = {
        "epoch": 200,
        "iter": 62500,
        "cfg": "model = dict(\n    type='BYOL',\n    base_momentum=0.01)\n",
        "seed": 0,
        "experiment_name": "byol_resnet50_16xb256-coslr-200e_in1k_20220825_101010",
        "time": "20220825_101010",
        "mmengine_version": "0.1.0",
        "hook_msgs": {"last_ckpt": "/work_dirs/epoch_200.pth"},
        "dataset_meta": {"CLASSES": ("tench", "goldfish")},
    }
    return {"meta": meta, "state_dict": module(state)}


def _hub() -> dict[str, Any]:
    buffer = named.Name("mmengine.logging.history_buffer", "HistoryBuffer")
    history = {
        "max_length": 1000000,
        "_log_history": named.array(np.linspace(8, 1, 5)),
        "_count_history": named.array(np.ones(5, dtype=np.int64)),
    }
    losses = named.Made(buffer, (), history, new=True)
    schedule = {"by_epoch": False, "begin": 0, "end": 3120, "last_step": 3120, "_global_step": 3121, "_last_value": [4.8], "verbose": False}
    return {
        "message_hub": {
            "log_scalars": {"train/loss": losses},
            "runtime_info": {"epoch": 200, "iter": 62500, "max_epochs": 200},
            "resumed_keys": {"train/loss": True},
        },
        "param_schedulers": [schedule],
    }


def lightly(path: Path, *, method: str) -> State:
    """lightly's benchmarks/imagenet/resnet50/METHOD.py, saved by PyTorch Lightning 2 at the end of a run in mixed precision.

    Args:
        method: byol, whose backbone is the student; dino, whose backbone is the teacher; mocov2; or swav, which has queues and prototypes.
    """
    draws = Draws(9)
    state = draws.resnet("backbone.") | draws.mlp("projection_head.layers", (OUT, 24, 16))
    other = {"byol": "teacher", "dino": "student", "mocov2": "key"}.get(method)
    if other:
        state |= draws.resnet(f"{other}_backbone.") | draws.mlp(f"{other}_projection_head.layers", (OUT, 24, 16))
    else:
        state |= draws.linear("prototypes.heads.0", 11, 16) | {
            "queues.0.bank": draws.normal(16, 32),
            "queues.0.bank_ptr": torch.tensor([0]),
        }
    state |= draws.linear("online_classifier.classification_head", CLASSES, OUT)
    progress = {"total": {"ready": 500400, "completed": 500400}, "current": {"ready": 5004, "completed": 5004}}
    loop = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": 500400},
        "epoch_loop.batch_progress": {**progress, "is_last_batch": True},
    }
    saver = {
        "monitor": None,
        "best_model_score": None,
        "best_model_path": "/logs/epoch=99-step=500400.ckpt",
        "current_score": None,
        "dirpath": "/logs",
        "best_k_models": {},
        "kth_best_model_path": "",
        "kth_value": torch.tensor(float("inf")),
        "last_model_path": "",
    }
    content = {
        "epoch": 99,
        "global_step": 500400,
        "pytorch-lightning_version": "2.0.6",
        "state_dict": module(state),
        "loops": {
            "fit_loop": loop,
            "validate_loop": {"state_dict": {}},
            "test_loop": {"state_dict": {}},
            "predict_loop": {"state_dict": {}},
        },
        "callbacks": {
            "EarlyStopping{'monitor': 'train_loss', 'mode': 'min'}": {
                "wait_count": 99,
                "stopped_epoch": 0,
                "best_score": torch.tensor(6.2),
                "patience": 10**12,
            },
            "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None}": saver,
        },
        "optimizer_states": [draws.sgd(state, name=method)],
        "lr_schedulers": [
            {
                "warmup_epochs": 50040,
                "max_epochs": 500400,
                "base_lrs": [0.45],
                "last_epoch": 500400,
                "_step_count": 500401,
                "lr_lambdas": [{}],
            }
        ],
        "MixedPrecision": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 1},
        "hparams_name": "kwargs",
        "hyper_parameters": {"batch_size_per_device": 128, "num_classes": 1000},
    }
    named.save(content, path)
    return state
