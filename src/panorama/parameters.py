"""What a model's parameters are, layer by layer."""

# Keras keeps these among the weights; PyTorch calls them buffers. They are state, not parameters.
RUNNING_STATISTICS = {"moving_mean", "moving_variance"}


def parameter_table(model) -> int:
    """Print each layer's parameter shapes and counts, and the total; return the total.

    `model` is a torch module or a built Keras model or layer. A parameter that two layers share is
    counted once, where it first stands. Frozen parameters count; the running statistics of
    batch normalisation do not, in either framework.

    Raises ValueError for a Keras model that is not built, and TypeError for anything else.
    """
    layers: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for layer, name, shape in _parameters(model):
        layers.setdefault(layer, []).append((name, shape))

    rows = [
        (
            layer,
            "  ".join(f"{name} {_show(shape)}" for name, shape in parameters),
            _count(parameters),
        )
        for layer, parameters in layers.items()
    ]
    total = sum(count for _, _, count in rows)
    table = [("layer", "shapes", "parameters")]
    table += [(layer, shapes, f"{count:,}") for layer, shapes, count in rows]
    table += [("total", "", f"{total:,}")]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for layer, shapes, count in table:
        print(f"{layer:<{widths[0]}}  {shapes:<{widths[1]}}  {count:>{widths[2]}}")
    return total


def _parameters(model):
    """(layer, parameter, shape) in the model's order."""
    if hasattr(model, "named_parameters"):  # PyTorch
        for path, parameter in model.named_parameters():
            layer, _, name = path.rpartition(".")
            yield layer or type(model).__name__, name, tuple(parameter.shape)
    elif hasattr(model, "weights") and hasattr(model, "built"):  # Keras
        if not model.built:
            raise ValueError(
                f"{model.name} is not built, so its shapes are not known yet: "
                "call it once on a batch, or give it an Input"
            )
        seen = set()
        for weight in model.weights:
            if weight.name not in RUNNING_STATISTICS and id(weight) not in seen:
                seen.add(id(weight))
                layer = weight.path.rpartition("/")[0].removeprefix(f"{model.name}/")
                yield layer, weight.name, tuple(weight.shape)
    else:
        raise TypeError(
            f"parameter_table needs a torch module or a Keras model, not {type(model).__name__}"
        )


def _show(shape):
    return "×".join(map(str, shape)) or "scalar"


def _count(parameters):
    count = 0
    for _, shape in parameters:
        size = 1
        for length in shape:
            size *= length
        count += size
    return count
