"""Distillation: a smaller network learns what the dense network of its task says, too."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from acll.training.learner import TaskLearner

SHARE = 0.5  # of the loss that comes from the dense network
TEMPERATURE = 2.0


def distilled(
    learner: TaskLearner, teacher: TaskLearner, dense: Mapping[str, Tensor]
) -> TaskLearner:
    """Return a learner whose loss is in part the divergence from a dense network's predictions.

    Hinton, Vinyals & Dean 2015: with logits z of the dense network and y of the learner's, (1 − a)
    times the task's loss and a T² KL(softmax(z/T) ‖ softmax(y/T)), a and T as above; of
    segmentation the mean over all pixels, those of ignored labels too: what the dense network says
    needs no label, and such pixels are part of the images that will be predicted. teacher: whose
    network is the dense one, of which a copy is made. dense: its state dict.
    """
    network = copy.deepcopy(teacher.network)
    network.load_state_dict(dense)
    network.to(learner.device).eval().requires_grad_(False)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        own = learner.network(images).float()
        with torch.no_grad():
            theirs = network(images).float()
        own_log = functional.log_softmax(own / TEMPERATURE, 1)
        their_log = functional.log_softmax(theirs / TEMPERATURE, 1)
        divergence = (their_log.exp() * (their_log - own_log)).sum(1).mean() * TEMPERATURE**2
        return (1 - SHARE) * learner.task_loss(own, labels) + SHARE * divergence

    return replace(learner, batch_loss=loss)
