"""The devices that this machine computes on."""

import torch


def find_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: this machine has none, or it is one without values ("meta"); the
            message names those that there are.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        usable = found.type != "meta"
    except (RuntimeError, TypeError, AssertionError, ImportError):
        usable = False
    if not usable:
        there_are = ", ".join(device_names())
        raise ValueError(
            f"device is {str(device)!r}, but a model can be on one of: {there_are}"
        )
    return found


def device_names() -> list[str]:
    """ "cpu" and every accelerator, such as "cuda:0" or "mps:0"."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    kind = accelerator.type if accelerator else ""
    n_devices = torch.accelerator.device_count() if accelerator else 0
    return ["cpu", *(f"{kind}:{i}" for i in range(n_devices))]
