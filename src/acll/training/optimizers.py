"""The optimisers: two of PyTorch, and those of timm that go by the values of each gradient alone.

A frozen weight has a gradient of 0. An optimiser keeps its bits where 0 moves nothing: that is so
of Adam and all that scale a gradient value by value, or by a number for each tensor. It is not
where values are mixed, or computed anew. A test tries each name.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Optimizer = Literal[
    "sgd",
    "adamw",
    "adabelief",
    "adadelta",
    "adafactor",
    "adafactorbv",
    "adagrad",
    "adamax",
    "adan",
    "adopt",
    "lamb",
    "lambc",
    "laprop",
    "larc",
    "lars",
    "lion",
    "mars",
    "nadam",
    "nesterov",
    "nlarc",
    "nlars",
    "novograd",
    "radabelief",
    "radam",
    "rmsprop",
    "rmsproptf",
]
WITH_MOMENTUM = (
    "sgd", "adafactorbv", "larc", "lars", "nesterov", "nlarc", "nlars", "rmsprop", "rmsproptf"
)  # fmt: skip
WITH_NESTEROV = ("nesterov", "nlarc", "nlars")
# of which the weight decay is part of the gradient; elsewhere it is a step of its own
COUPLED = ("sgd", "nesterov")
_BY_NORM = ("lamb", "lambc", "larc", "lars", "nlarc", "nlars")
# names of timm that are none of these, by what stands against them
_REFUSED = {
    "it mixes the values of a tensor, so that frozen weights would move": (
        "adamuon kron kronc kronw muon nadamuon nmuon"
    ),
    "it projects each tensor, so that frozen weights would move": "adamp cadamp csgdp sgdp",
    "it computes weights anew from those at the start, so that frozen ones would move": (
        "madgrad madgradw"
    ),
    "it needs second derivatives, which are not computed": "adahessian",
    "it scales the step by the share of values that agree, of which frozen weights are none": (
        "cadafactor cadafactorbv cadafactorbvc cadamc cadamw cadan cadanw cadopt cadoptc cadoptw "
        "clamb clambw claprop clion clionc cmars cnadamc cnadamw crmsproptf csgdc csgdw"
    ),
    "it needs a library for GPUs that is not installed": (
        "bnbadam bnbadam8bit bnbadamw bnbadamw8bit bnbademamix bnbademamix8bit bnblion "
        "bnblion8bit bnbsgd bnbsgd8bit fusedadam fusedadamw fusedlamb fusednovograd fusedsgd"
    ),
}
# those that differ by their weight decay, which the loop applies
_SAME = {
    "adamw": "adam adamc adamwlegacy",
    "adafactorbv": "adafactorbvc",
    "adan": "adanw",
    "adopt": "adoptc adoptw",
    "lamb": "lambcd lambw",
    "lambc": "lambcw",
    "laprop": "lapropc",
    "lion": "lionc",
    "nadam": "nadamc nadamlegacy nadamw",
    "nesterov": "nesterovw",
    "novograd": "novogradc novogradw",
    "radam": "radamlegacy radamw",
    "rmsproptf": "rmsproptfc rmsproptfw",
    "sgd": "momentum sgdc sgdw",
}


def why_not(name: str) -> str | None:
    """Return why an optimiser of timm is none here; None where there is nothing known of it."""
    for reason, names in _REFUSED.items():
        if name in names.split():
            return f"timm's {name} is left out: {reason}"
    for own, names in _SAME.items():
        if name in names.split():
            return f"differs from {own} in how weights decay, which training does itself: use {own}"
    return None


def optimizer_of(
    name: Optimizer, parameters: "Iterable[torch.Tensor]", lr: float, momentum: float | None
) -> "torch.optim.Optimizer":
    """Return an optimiser that applies no weight decay: `GradientMasks` does.

    lr: at the start. momentum: None where the optimiser has none.
    """
    import torch

    if name == "sgd":
        assert momentum is not None
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    from timm.optim import create_optimizer_v2

    # where they apply no decay, these would not adapt the rate to the norm of a tensor, either
    more = {"always_adapt": True} if name in _BY_NORM else {}
    made: torch.optim.Optimizer = create_optimizer_v2(
        list(parameters), opt=name, lr=lr, weight_decay=0.0, momentum=momentum or 0.0, **more
    )
    return made
