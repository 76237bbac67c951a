"""Google's rules for names. What passes them needs no quoting, in a shell or between commas."""

import re
from collections.abc import Mapping
from typing import Literal

from imagen_jax.config import shorten

Kind = Literal[
    "run id",
    "project",
    "zone",
    "accelerator",
    "runtime version",
    "service account",
    "network",
    "image",
    "workdir",
    "package",
    "duration",
    "resource",
    "file of code",
]

_LABEL = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
RULES: Mapping[Kind, tuple[str, str]] = {
    # 40 characters, as an attempt's number comes after it and a resource's name has 63 at most.
    "run id": (r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?", "such as base64-a"),
    "project": (r"(?:[a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", "such as my-project-123"),
    "zone": (r"[a-z]+-[a-z]+[0-9]{1,2}-[a-z]", "such as us-west4-a"),
    "accelerator": (r"(?:v2|v3|v4|v5litepod|v5p|v6e)-[1-9][0-9]{0,4}", "such as v5litepod-8"),
    "runtime version": (r"[a-z0-9][-a-z0-9.]{0,62}", "such as v2-alpha-tpuv6e"),
    "service account": (
        r"[a-z0-9][-a-z0-9]{4,61}@[-a-z0-9.]+\.gserviceaccount\.com",
        "such as trainer@my-project-123.iam.gserviceaccount.com",
    ),
    "network": (_LABEL, "such as default"),
    "image": (
        r"(?!.*(?:\.\.|//))[a-z0-9][-a-z0-9._:/]*(?:@sha256:[0-9a-f]{64})?",
        "such as us-docker.pkg.dev/my-project-123/images/imagen@sha256:...",
    ),
    "workdir": (
        r"gs://[a-z0-9][-a-z0-9._]{1,61}[a-z0-9](?:/(?!\.\.?(?:/|$))[A-Za-z0-9._=-]+)+",
        "such as gs://my-bucket/runs/mine",
    ),
    "package": (r"[a-z0-9][a-z0-9.-]+", "such as fonts-noto-color-emoji"),
    "duration": (r"[1-9][0-9]{0,5}[smhd]", "such as 90m, 24h or 3d"),
    "resource": (_LABEL, "such as base64-a-1"),
    "file of code": (r"(?!.*\.\.)[a-z0-9][-a-z0-9.]{0,99}", "such as code-0123abcd.tar"),
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def check_names(kind: Kind, name: str) -> str:
    """`name` itself. Errors: ValueError for one that Google would refuse, with an example."""
    pattern, example = RULES[kind]
    if re.fullmatch(pattern, name) is None:
        raise ValueError(f"{shorten(name)} is no {kind}: give one {example}")
    return name


def parse_seconds(duration: str) -> int:
    """Parse a time such as `90s`, `15m`, `24h` or `3d`. Errors: as `check_names`."""
    check_names("duration", duration)
    return int(duration[:-1]) * SECONDS[duration[-1]]
