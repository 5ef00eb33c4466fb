"""Frozen networks split over the processes of a training, where one device would not hold them whole."""

import os
from typing import Any

import torch

from facerestore.core.errors import ConfigError
from facerestore.training.stage_task import PIPELINE_PARTS, StageTask
from facerestore.training.task import Task


def asked_to_split() -> bool:
    """Whether `accelerate launch` was given a configuration with FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def split(task: Task, device: torch.device, processes: int) -> int:
    """Split what is frozen of every UNet and transformer over all processes, block by block.

    A block's weights are gathered while it runs, and again on the way back. What is trained stays whole on
    every process: optimisers, averages, checkpoints and exports are as without, and so is every step. From
    now on all processes have to ask such a network together. Autoencoders and networks of losses stay whole.

    Args:
        task: built; each process has loaded it whole.
        device: of this process.
        processes: how many there are.

    Returns:
        How many parameters were split.

    Raises:
        ConfigError: if there are none, or there is one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    owners: list[Any] = [task.stage, task.before, *task.others] if isinstance(task, StageTask) else []
    found = [getattr(owner, part, None) for owner in owners for part in PIPELINE_PARTS]
    nets: list[Any] = [net for net in found if getattr(net, "_no_split_modules", None)]
    if processes < 2 or not nets:
        raise ConfigError(
            "FSDP splits frozen UNets and transformers over several processes: this training has "
            f"{processes} and {len(nets)} of these; launch it without FSDP"
        )
    mesh = init_device_mesh(device.type, (processes,))
    count = 0
    for net in nets:
        count += sum(value.numel() for value in net.parameters() if not value.requires_grad)
        blocks = [module for module in net.modules() if type(module).__name__ in net._no_split_modules]
        for module in (*reversed(blocks), net):  # the inner ones first
            trained = {value for value in module.parameters() if value.requires_grad}
            fully_shard(module, mesh=mesh, ignored_params=trained)
    return count
