"""DeepFloyd IF's weights, in the folders that diffusers reads: to a cascade of this package.

| file | holds |
|---|---|
| `unet_config.py` | `unet/config.json` to `config.DeepFloydUNet` |
| `scheduler_config.py` | `scheduler_config.json` to the diffusion process and its sampler |
| `config_fields.py` | what both of these read their fields with |
| `time_steps.py` | DeepFloyd's lists of time steps |
| `tensor_names.py` | names and layouts of the tensors, in both directions |
| `convert.py` | folders to a bundle, tensor by tensor |
| `weights.py` | a network's tensors, found, and read when they are needed |
| `load.py` | folders to stages, text encoder and `Imagen` |
"""
