"""What every lifter offers, and how a plain module of one seed becomes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tips_dist.files import UserError
from tips_dist.skeleton import JOINTS, ROOT, Representation

Make = Callable[[Representation, int], nn.Module]


class BaseLifter(nn.Module):
    """S lifters of one representation: normalised 2D poses (S, B, 17, 2) -> depth offsets (S, B, 17), root 0.

    Poses are centred on the root; their root-to-head distance is about 0.1, depth is in units of that distance. A
    subclass that is registered as a lifter can be named in a study file (``model.lifter``). What it must keep:

    - every parameter and buffer has a leading axis of S rows, or S times as many, so that a seed can be cut out;
    - row k depends on row k of the input and of the parameters alone, whatever the other rows hold;
    - it is made by ``(representation, width, seeds, batch_norm=…, dropout=…)``, and the same arguments make the same
      shapes, so that weights on disk can be checked before they are used.

    ``tips_dist.testing.LifterContract`` checks all of it.
    """

    def __init__(self, representation: Representation, width: int, seeds: int = 1) -> None:
        super().__init__()
        self.representation = representation
        self.width = width
        self.seeds = seeds

    @classmethod
    def width_for(cls, representation: str, width: int) -> int:
        """The width to build with where a study file says ``width``; a lifter may match a solo lifter's parameters."""
        return width

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights of each seed from its own generator."""
        raise NotImplementedError

    def take_generators(self, generators: Sequence[torch.Generator]) -> None:
        """One random stream per seed for the coming step, for whatever is random in training; drawn on the CPU."""

    def take_keys(self, keys: Tensor) -> bool:
        """The keys (S,) of the coming step's random numbers, on the lifter's device (module ``counters``).

        Returns:
            Whether it draws from them; False asks for :meth:`take_generators` instead.
        """
        return False

    @property
    def is_random(self) -> bool:
        """Whether :meth:`take_keys` (or :meth:`take_generators`) is to be called before each step."""
        return False

    def extra_repr(self) -> str:
        """Name the representation when printed."""
        return f"{self.representation.name}, width={self.width}, seeds={self.seeds}"


class PerSeed(BaseLifter):
    """S copies of a plain module of one seed, run one after the other; made by :func:`per_seed`.

    The module takes (B, 17, 2) and gives (B, 17); the root's column is put to 0. Its layers may hold batch statistics
    and be random: each copy has its own statistics and its own random stream. Several workers
    (``resources.workers``) see different numbers with such layers, as their batches are shares of the whole.
    """

    make: ClassVar[Make]

    def __init__(
        self,
        representation: Representation,
        width: int,
        seeds: int = 1,
        *,
        blocks: int | None = None,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(representation, width, seeds)
        made = type(self).make(representation, width)
        object.__setattr__(self, "_one", made)  # not a submodule: it lends its code, the numbers are ours
        parameters = dict(made.named_parameters())
        buffers = {name: buffer for name, buffer in made.named_buffers() if buffer.is_floating_point()}
        self._dots = {name: name.replace(".", "__") for name in [*parameters, *buffers]}
        for name, tensor in [*parameters.items(), *buffers.items()]:
            copies = tensor.detach().expand(seeds, *tensor.shape).clone()
            if name in parameters:
                self.register_parameter(self._dots[name], nn.Parameter(copies))
            else:
                self.register_buffer(self._dots[name], copies)
        self._random = any("Dropout" in type(layer).__name__ for layer in made.modules())
        self._generators: Sequence[torch.Generator] = ()
        keep = torch.ones(1, len(JOINTS))
        keep[:, ROOT] = 0
        self.keep: Tensor
        self.register_buffer("keep", keep, persistent=False)

    def forward(self, poses: Tensor) -> Tensor:
        """Predict depth offsets; (S, B, 17, 2) -> (S, B, 17)."""
        one: nn.Module = self.__dict__["_one"]
        one.train(self.training)
        found = []
        for seed, rows in enumerate(poses.unbind()):
            tensors = {name: getattr(self, ours)[seed] for name, ours in self._dots.items()}
            if self.training and self._random and self._generators:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(_number(self._generators[seed]))
                    offsets = functional_call(one, tensors, (rows,))
            else:
                offsets = functional_call(one, tensors, (rows,))
            if not isinstance(offsets, Tensor) or offsets.shape != rows.shape[:2]:
                got = tuple(offsets.shape) if isinstance(offsets, Tensor) else type(offsets).__name__
                raise UserError(
                    f"{type(self).__name__}: gave {got} for poses {tuple(rows.shape)}, expected depths (B, 17)"
                )
            found.append(offsets)
        return torch.stack(found) * self.keep[:, None]

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Make the module anew for each seed, with torch's random numbers seeded from the seed's generator."""
        for seed, generator in enumerate(generators):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_number(generator))
                fresh = type(self).make(self.representation, self.width).state_dict(keep_vars=True)
            with torch.no_grad():
                for name, ours in self._dots.items():
                    if name in fresh:
                        getattr(self, ours)[seed] = fresh[name]

    def take_generators(self, generators: Sequence[torch.Generator]) -> None:
        """For dropout: one stream per seed, so that packing changes no mask."""
        self._generators = generators

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PerSeed:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.__dict__["_one"]._apply(fn)  # what it holds beside weights: indices, counts
        return self

    @property
    def is_random(self) -> bool:
        """Whether the module has dropout."""
        return self._random


def per_seed(make: Make) -> type[PerSeed]:
    """Make a lifter of a plain module: ``register("lifters", "mine", per_seed(MyModule))``.

    Args:
        make: a module's class, or a function: (representation, width) -> a module that takes normalised poses
            (B, 17, 2) and gives depth offsets (B, 17).
    """
    name = getattr(make, "__name__", "Lifter")
    members: dict[str, object] = {"make": staticmethod(make), "__module__": getattr(make, "__module__", __name__)}
    return type(name, (PerSeed,), members)


@torch.no_grad()
def check_lifter(lifter: BaseLifter) -> None:
    """Refuse a lifter that does not keep the contract, as far as its shapes tell.

    Raises:
        UserError: what it gives for poses has another shape, or a tensor has no rows for the seeds.
    """
    for name, tensor in lifter.state_dict().items():
        if tensor.dim() == 0 or tensor.shape[0] % lifter.seeds or not tensor.is_floating_point():
            raise UserError(
                f"its tensor {name} is {tensor.dtype} {tuple(tensor.shape)}; the leading axis must be rows of "
                f"{lifter.seeds} seeds of floats"
            )
    if not any(True for _ in lifter.parameters()):
        raise UserError("it has no parameters, so there is nothing to train")
    lifter.eval()
    where = next(lifter.parameters()).device
    found = lifter(torch.zeros(lifter.seeds, 2, len(JOINTS), 2, device=where))
    lifter.train()
    if not isinstance(found, Tensor) or found.shape != (lifter.seeds, 2, len(JOINTS)):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(f"it gave {got} for poses {(lifter.seeds, 2, 17, 2)}, expected depths (S, B, 17)")


def _number(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))
