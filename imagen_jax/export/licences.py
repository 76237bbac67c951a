"""Licences of weights that others trained, by the name that bundles have of their dataset."""

LICENCES = {
    "deepfloyd": (
        "The weights are DeepFloyd IF's, under the DeepFloyd IF License Agreement "
        "(https://github.com/deep-floyd/IF/blob/develop/LICENSE-MODEL), which restricts use, of "
        "images too, to research that is not commercial, and has further terms. To pass "
        "weights on, give a copy of it with them, and this notice: DeepFloyd is licensed under the "
        "DeepFloyd License, Copyright (c) Stability AI Ltd. All Rights Reserved. DeepFloyd's "
        "safety checker and watermark are not run."
    )
}
