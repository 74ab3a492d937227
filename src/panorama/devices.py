"""Where PyTorch computes."""


def device():
    """The fastest `torch.device` of this machine: CUDA, then Apple's MPS, then the CPU.

    Raises ImportError where PyTorch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ImportError(
            "panorama.device() needs PyTorch, which is not installed: pip install torch torchvision"
        ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
