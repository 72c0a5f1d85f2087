"""What a checkpoint is bound to: the values that change its numbers, compared one by one, so a new knob is none."""

from __future__ import annotations

from pydantic import BaseModel

from tips_dist.config import Configuration
from tips_dist.runfolder.records import Identity, changed
from tips_dist.sections import Section, before, digest

INDIFFERENT = ("training.checkpoint_every", "stopping.freed", "stopping.trials")  # knobs that change no number
# The knobs that stood in the digest that checkpoints of schema 1 were bound to.
_FIRST: dict[str, str] = {
    "": "representation model training losses stopping",
    "model": "width discriminator_blocks student_blocks batch_norm dropout",
    "training": "steps batch_size evaluate_every checkpoint_every validation_poses generator_lr discriminator_lr "
    "weight_decay beta1 beta2 final_lr_factor flip_probability rotation azimuth_degrees elevation_degrees precision "
    "compile turns candidates record_depths",
    "losses": "adversarial cycle_2d cycle_3d consistency_90 bone_prior adversarial_kind real_label label_swap",
    "stopping": "divergence plateau policy",
    "stopping.policy": "warm_up patience dominance dominance_accuracy failure flat deep drift_slack drift_alarm "
    "plateau_share plateau_patience plateau_learnt plateau_progress smoothing",
}


def identity_of(configuration: Configuration, data_digest: str, scale: float) -> Identity:
    """The identity of a run."""
    return Identity(
        configuration=configuration,
        configuration_digest=digest(configuration),
        data_digest=data_digest,
        scale=scale,
    )


def why_other(recorded: Identity, now: Identity) -> str | None:
    """What a checkpoint was made with that is not so now, in words; None if it may go on."""
    if recorded.data_digest != now.data_digest:
        return "data digest"
    if now.configuration is None:
        raise ValueError("the identity of a run knows its configuration")
    if recorded.configuration is None:
        known = _as_first(now.configuration)
        same = known is not None and recorded.configuration_digest == digest(known)
        return None if same else "configuration"
    different = [key for key in changed(recorded.configuration, now.configuration) if key not in INDIFFERENT]
    if different:
        was, wanted = (_value(one, different[0]) for one in (recorded.configuration, now.configuration))
        return f"configuration: {different[0]} was {was!r} and is {wanted!r} now"
    return "configuration: its seeds had values of their own" if recorded.per_seed else None


def _as_first(section: Section, path: str = "") -> dict[str, object] | None:
    """The values that schema 1 knew; None if a knob that came later does not do what runs did before it."""
    values: dict[str, object] = {}
    earlier, first = before(type(section)), _FIRST[path].split()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in first:
            if value != earlier.get(name, field.default):
                return None
        elif isinstance(value, Section):
            inner = _as_first(value, f"{path}.{name}".lstrip("."))
            if inner is None:
                return None
            values[name] = inner
        else:
            values[name] = value
    return values


def _value(section: BaseModel, key: str) -> object:
    value: object = section
    for name in key.split("."):
        value = getattr(value, name)
    return value
