"""Names of the mesh's axes, and which of the networks' axes each one splits.

| axis | what it splits |
|---|---|
| `data` | images; over several slices, too |
| `fsdp` | images as well, and parameters, optimiser state and EMA |
| `spatial` | the height of images: neighbours exchange the rows at their borders |
| `tensor` | a text encoder's heads and hidden units, in the place of `spatial` |
"""

DATA, FSDP, SPATIAL, TENSOR = "data", "fsdp", "spatial", "tensor"
AXES = (DATA, FSDP, SPATIAL)
RULES = (("batch", (DATA, FSDP)), ("height", SPATIAL))  # by the networks' names of their axes
