"""Packed layers: every parameter carries a leading pack axis K, so that K networks train as one program.

K counts seeds, or seeds x parts. Layer k computes exactly what a plain layer with its rows would compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tips_dist import counters


class PackedLinear(nn.Module):
    """K linear layers side by side: (K, B, in) -> (K, B, out), one batched matrix product.

    With ``spectral`` each matrix is divided by its largest singular value (Miyato et al. 2018, arXiv 1802.05957), found
    by power iteration from where the last one ended: see :meth:`iterate`. The singular vectors are constants to the
    gradient, as in the paper.
    """

    bias: nn.Parameter | None

    def __init__(
        self, pack: int, features_in: int, features_out: int, *, bias: bool = True, spectral: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(pack, features_in, features_out))
        self.register_parameter("bias", nn.Parameter(torch.empty(pack, 1, features_out)) if bias else None)
        self.spectral = spectral
        self.left: Tensor
        self.right: Tensor
        if spectral:
            self.register_buffer("left", torch.full((pack, features_in, 1), features_in**-0.5))
            self.register_buffer("right", torch.full((pack, 1, features_out), features_out**-0.5))

    def forward(self, features: Tensor) -> Tensor:
        """Apply row k's layer to row k's features."""
        product = products(features, self.matrix())
        return product if self.bias is None else product + self.bias

    def matrix(self) -> Tensor:
        """What features are multiplied by, (K, in, out): the weight, or that over its spectral norm."""
        if not self.spectral:
            return self.weight
        return self.weight / (self.left * self.weight * self.right).sum((1, 2), keepdim=True)

    @torch.no_grad()
    def iterate(self) -> None:
        """One power iteration; each row's stays with the row."""
        self.right.copy_(F.normalize((self.weight * self.left).sum(1, keepdim=True), dim=2))
        self.left.copy_(F.normalize((self.weight * self.right).sum(2, keepdim=True), dim=1))


def products(first: Tensor, second: Tensor) -> Tensor:
    """One matrix product per row of the pack, (K, m, n), (K, n, o) -> (K, m, o), its sums in an order that K is not in.

    A lone product with a vector has an order of its own, so it gets company.
    """
    if len(first) == 1 and (first.shape[1] == 1 or second.shape[2] == 1):
        return torch.bmm(first.expand(2, -1, -1), second.expand(2, -1, -1))[:1]
    return torch.bmm(first, second)


class PackedBatchNorm(nn.Module):
    """Batch norm over axis 1, each row of the pack with statistics of its own: (K, B, features)."""

    def __init__(self, pack: int, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(pack, 1, features))
        self.bias = nn.Parameter(torch.zeros(pack, 1, features))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(pack, 1, features))
        self.register_buffer("variance", torch.ones(pack, 1, features))
        self.momentum = momentum
        self.average: Callable[[Tensor], Tensor] = _alone  # over the workers that share a batch; differentiable

    def forward(self, features: Tensor) -> Tensor:
        """Normalise by the batch in training, by the running statistics otherwise."""
        features = features.to(self.weight.dtype)  # products may be in bfloat16; statistics are not
        if self.training:
            mean = self.average(features.mean(1, keepdim=True))
            variance = self.average((features - mean).square().mean(1, keepdim=True))
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        else:
            variance, mean = self.variance, self.mean
        return (features - mean) * torch.rsqrt(variance + 1e-5) * self.weight + self.bias


class PackedDropout(nn.Module):
    """Dropout whose masks come from one random stream per seed, so that packing changes no mask.

    Before each step it is handed a key per seed, from which masks are counted on the device (module ``counters``); or,
    in runs that began so, generators of the CPU. Rows of one seed are neighbours.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.keys: Tensor | None = None  # (S,) of this step
        self.calls = 0  # of forward in this step: each has masks of its own
        self.number = 0  # of this layer among the lifter's
        self.generators: Sequence[torch.Generator] = ()
        self.share = (0, 1, 1)  # this worker's rank, the number of workers, and its poses of a batch

    def forward(self, features: Tensor) -> Tensor:
        """Zero a share of the features and scale up the rest; the identity outside training."""
        if not self.training or self.probability == 0:
            return features
        if self.keys is not None:
            return features * self._counted(self.keys, features) / (1 - self.probability)
        rows, (count, width) = features.shape[0] // len(self.generators), features.shape[1:]
        keep, (rank, workers, size) = 1 - self.probability, self.share
        shape = (rows, count // size, workers, size, width)  # of all workers: a mask does not depend on their number
        masks = [torch.rand(shape, generator=g)[:, :, rank] < keep for g in self.generators]
        return features * torch.cat(masks).view(features.shape).to(features.device) / keep

    def _counted(self, keys: Tensor, features: Tensor) -> Tensor:
        """The mask of these features: a pose's numbers do not depend on which worker has it."""
        pack, count, width = features.shape
        rank, workers, size = self.share
        each = -(-width // counters.LANES)  # words of a pose
        first = ((self.calls << 16 | self.number) << 40) + rank * size * each
        self.calls += 1
        shape = (pack // len(keys), count // size, size, each)
        words = counters.words(keys, first, shape, (count * workers * each, workers * size * each, each, 1))
        return counters.drawn(words, 1 - self.probability)[..., :width].reshape(features.shape)


def _alone(value: Tensor) -> Tensor:
    return value


class _Trunk(torch.autograd.Function):
    """x + relu(linear(relu(linear(x)))), block after block, with a backward pass that makes no needless copy.

    The matrix products run in ``dtype``; features between blocks, and the parameters, stay in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        saved = []
        for block in range(0, len(parameters), 4):
            inner, w1, b1, w2, b2 = (tensor.to(dtype) for tensor in (x, *parameters[block : block + 4]))
            # The bias is added in place while the product is in the cache; baddbmm would write it out first.
            first = torch.bmm(inner, w1).add_(b1).relu_()
            second = torch.bmm(first, w2).add_(b2).relu_()
            saved += [inner, w1, first, w2, second]
            # Adding two types at once is slow in torch: first one type, then in place.
            x = x + second if second.dtype == x.dtype else second.to(x.dtype).add_(x)
        ctx.save_for_backward(*saved)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wide, relu, saved = gradient.dtype, torch.ops.aten.threshold_backward, ctx.saved_tensors
        found: list[Tensor] = []
        for block in reversed(range(0, len(saved), 5)):
            inner, w1, first, w2, second = saved[block : block + 5]
            outer = relu(gradient.to(second.dtype), second, 0)
            weight2, bias2 = torch.bmm(first.mT, outer), outer.sum(1, keepdim=True)
            outer = torch.bmm(outer, w2.mT)
            relu.grad_input(outer, first, 0, grad_input=outer)
            weight1, bias1 = torch.bmm(inner.mT, outer), outer.sum(1, keepdim=True)
            gradient = torch.bmm(outer, w1.mT).to(wide).add_(gradient)
            found = [weight1.to(wide), bias1.to(wide), weight2.to(wide), bias2.to(wide), *found]
        return gradient, None, *found


class ResidualBlock(nn.Module):
    """(Linear, [batch norm,] ReLU, [dropout]) twice, plus a skip connection (the authors' block).

    A linear layer before batch norm has no bias: the batch's mean takes it out again. Its gradient would be 0 but for
    rounding, which Adam scales up to whole steps: a random walk that training does not see, but that the running mean
    follows too late, so that evaluation would depend on the order in which floats are added.

    ``dtype`` is the type of its matrix products: float32, or bfloat16 (what is added to the skip connection, the
    skip connection itself and all parameters stay in float32).
    """

    def __init__(
        self, pack: int, width: int, *, batch_norm: bool = False, dropout: float = 0.0, spectral: bool = False
    ) -> None:
        super().__init__()
        self.dtype = torch.float32
        layers: list[nn.Module] = []
        for _ in range(2):
            layers.append(PackedLinear(pack, width, width, bias=not batch_norm, spectral=spectral))
            if batch_norm:
                layers.append(PackedBatchNorm(pack, width))
            layers.append(nn.ReLU(inplace=not batch_norm))
            if dropout:
                layers.append(PackedDropout(dropout))
        self.layers = nn.Sequential(*layers)
        self.register_load_state_dict_pre_hook(_fold_biases)  # type: ignore[no-untyped-call]

    def forward(self, features: Tensor) -> Tensor:
        """(K, B, width) -> (K, B, width)."""
        out: Tensor
        if self.dtype == torch.float32:
            out = features + self.layers(features)
        else:
            with torch.autocast(features.device.type, dtype=self.dtype):
                out = features + self.layers(features)
        return out


def _fold_biases(block: ResidualBlock, tensors: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Read what was written when linear layers before batch norm had a bias: the running mean takes it out."""
    for index, layer in enumerate(block.layers):
        mean = f"{prefix}layers.{index}.mean"
        if isinstance(layer, PackedBatchNorm) and mean in tensors:
            tensors[mean] = tensors[mean] - tensors.pop(f"{prefix}layers.{index - 1}.bias", 0)


class Trunk(nn.Sequential):
    """Residual blocks one after another; trained without batch norm and dropout, they are one autograd node."""

    def __init__(
        self,
        blocks: int,
        pack: int,
        width: int,
        *,
        batch_norm: bool = False,
        dropout: float = 0.0,
        spectral: bool = False,
    ) -> None:
        options = {"batch_norm": batch_norm, "dropout": dropout, "spectral": spectral}
        super().__init__(*(ResidualBlock(pack, width, **options) for _ in range(blocks)))  # type: ignore[arg-type]
        self.plain = not (batch_norm or dropout)

    def forward(self, features: Tensor, twice: bool = False) -> Tensor:
        """(K, B, width) -> (K, B, width); ``twice``: so that its gradient can be differentiated again."""
        out: Tensor
        compiling = torch.compiler.is_compiling()
        if twice or not self.plain or not len(self) or not torch.is_grad_enabled() or compiling:
            out = super().forward(features)  # type: ignore[no-untyped-call]
        else:
            blocks = [block for block in self if isinstance(block, ResidualBlock)]
            layers = [layer for block in blocks for layer in block.layers if isinstance(layer, PackedLinear)]
            parameters = [tensor for layer in layers for tensor in (layer.matrix(), layer.bias)]
            out = _Trunk.apply(features, blocks[0].dtype, *parameters)  # type: ignore[no-untyped-call]
        return out


def initialise(model: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Draw the weights of each seed from its own generator: uniform within 1/sqrt(fan in), as ``nn.Linear`` does."""
    for layer in model.modules():
        if isinstance(layer, PackedLinear):
            bound = 1 / math.sqrt(layer.weight.shape[1])
            for parameter in layer.parameters():
                rows = parameter.shape[0] // len(generators)
                shape = (rows, *parameter.shape[1:])
                drawn = [torch.rand(shape, generator=g, dtype=parameter.dtype) for g in generators]
                with torch.no_grad():
                    parameter.copy_((2 * torch.cat(drawn) - 1) * bound)


def parameters_per_seed(model: nn.Module, seeds: int) -> int:
    """Trainable numbers of one seed's network."""
    return sum(parameter.numel() for parameter in model.parameters()) // seeds
