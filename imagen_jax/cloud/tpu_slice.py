"""A slice of TPUs: its chips, their zone, and how they are paid for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from imagen_jax import config
from imagen_jax.cloud import validate
from imagen_jax.config import require

Provisioning = Literal["on-demand", "spot", "reserved", "flex-start"]

# Source: Google, "TPU software versions" (cloud.google.com/tpu/docs/runtimes).
RUNTIMES: Mapping[str, str] = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
SINGLE_CORE = ("v5litepod", "v6e")  # whose names count chips
# Dollars an hour of one chip on demand in the US. Source: cloud.google.com/tpu/pricing.
PRICES: Mapping[str, float] = {"v4": 3.22, "v5e": 1.20, "v5p": 4.20, "v6e": 2.70}
PRICES_OF = "2025"
MOST_SLICES = 1024
LONGEST = 7 * 24 * 3600  # seconds that flex-start grants


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A queued resource, but for its name."""

    accelerator: str
    """gcloud's name of the chips: v5litepod-64 and v6e-64 have 64 chips, v4-64 and v5p-64 32."""
    zone: str
    """Zone of Google Cloud, such as us-west4-a."""
    project: str | None = None
    """Project of Google Cloud; default: gcloud's own."""
    provisioning: Provisioning = "on-demand"
    """Kind of capacity: spot is cheap and preempted; reserved needs a reservation; flex-start lasts
    --max-run."""
    max_run: str = "24h"
    """Time after which flex-start takes the chips back."""
    slices: config.Parallel = 1
    """Number of slices, joined by the data-centre network."""
    runtime_version: str | None = None
    """Image of the machines; default: Google's for the generation."""
    service_account: str | None = None
    """Service account of the workers; default: the project's Compute Engine account."""
    network: str | None = None
    """Network of the machines; default: `default`."""
    subnetwork: str | None = None
    """Subnetwork of that network, where it has several in the region."""
    internal_ips: bool = False
    """Give no public addresses: the network then needs Private Google Access and Cloud NAT."""

    def __post_init__(self) -> None:
        config.check_options(self)
        if self.accelerator.startswith(("tpu7x", "v7x")):
            raise ValueError(
                f"--accelerator {self.accelerator}: TPU7x is to be had through GKE alone; see "
                "launch/jobset.yaml"
            )
        validate.check_names("accelerator", self.accelerator)
        validate.check_names("zone", self.zone)
        named: tuple[tuple[validate.Kind, str | None], ...] = (
            ("project", self.project),
            ("runtime version", self.runtime_version),
            ("service account", self.service_account),
            ("network", self.network),
            ("network", self.subnetwork),
        )
        for kind, name in named:
            if name is not None:
                validate.check_names(kind, name)
        require(
            validate.parse_seconds(self.max_run) <= LONGEST,
            f"--max-run {self.max_run}: flex-start grants 7d at most",
        )
        require(self.slices >= 1, f"--slices {self.slices}: give 1 or more")
        require(self.slices <= MOST_SLICES, f"--slices {self.slices}: give {MOST_SLICES} at most")

    @property
    def generation(self) -> str:
        """The name that libtpu and `imagen_jax.parallel.accelerators` use."""
        first = self.accelerator.partition("-")[0]
        return {"v5litepod": "v5e"}.get(first, first)

    @property
    def runtime(self) -> str:
        """The machines' image."""
        return self.runtime_version or RUNTIMES[self.accelerator.partition("-")[0]]

    @property
    def chips(self) -> int:
        """Number of chips of all slices; v2, v3, v4 and v5p count TensorCores, two a chip."""
        kind, _, number = self.accelerator.partition("-")
        counted = int(number) if kind in SINGLE_CORE else max(1, int(number) // 2)
        return counted * self.slices

    @property
    def hosts(self) -> int:
        """Number of machines of all slices, as Google documents it: four chips each, or up to eight
        where one machine has the whole slice. What is created may differ, and is counted."""
        chips = self.chips // self.slices
        whole = self.accelerator.partition("-")[0] in SINGLE_CORE and chips <= 8
        return self.slices * (1 if whole else -(-chips // 4))

    def nodes(self, name: str) -> tuple[str, ...]:
        """List the nodes of the resource `name`: one a slice."""
        if self.slices == 1:
            return (name,)
        return tuple(f"{name}-{i}" for i in range(self.slices))
