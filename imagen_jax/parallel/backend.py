"""Refusals of jax's backend: devices that are not here, and 64-bit types, in one sentence."""

from typing import Any

FAILED = "Unable to initialize backend"  # how jax's RuntimeError begins
TRUE = ("1", "true", "t", "yes", "y", "on")  # as jax reads its environment
DOUBLE = (
    "64-bit types are on ({}): this package computes in float32 and bfloat16, and wider ones would "
    "change what it trains and samples; {}"
)


def refuse_x64() -> None:
    """Refuse jax's 64-bit types. Errors: ValueError where they are on."""
    import jax  # here: the command line asks for its sentences before jax is loaded

    settings: Any = jax.config
    if settings.jax_enable_x64:
        raise ValueError(DOUBLE.format("jax_enable_x64", "leave JAX_ENABLE_X64 unset"))


def refuse_x64_variable(value: str | None) -> None:
    """Refuse them by the value of JAX_ENABLE_X64. Errors: ValueError."""
    if value is not None and value.lower() in TRUE:
        raise ValueError(DOUBLE.format(f"JAX_ENABLE_X64={value}", "unset that variable"))


def dispatch_inline() -> None:
    """Run programs of CPUs on the thread that calls them; before there are devices.

    glibc keeps the memory that the main thread frees, and gives back that of jax's threads: a large
    training step would take hundreds of thousands of page faults.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def describe_failure(error: Exception) -> str | None:
    """Describe how to get devices that jax did not find; None for another error."""
    said = str(error).strip()
    no_plugin = isinstance(error, AssertionError)  # so jax says it, and its frames are taken away
    if not no_plugin and not said.startswith(FAILED):
        return None
    import jax

    if no_plugin and _has_devices(jax):
        return None
    settings: Any = jax.config
    wanted = settings.jax_platforms
    reason = said.partition("\n")[0].partition(": ")[2].partition(" (")[0].rstrip(".")
    return (
        f"JAX_PLATFORMS={wanted}: jax cannot use that here ({reason or 'it has no plugin for it'});"
        f" here it finds {_found(jax)}: unset JAX_PLATFORMS, or install jax for your accelerator"
    )


def _has_devices(jax: Any) -> bool:
    try:
        return bool(jax.devices())
    except (AssertionError, RuntimeError):
        return False


def _found(jax: Any) -> str:
    """The devices without that setting."""
    jax.config.update("jax_platforms", None)
    try:
        kinds = [device.platform for device in jax.devices()]
    except RuntimeError:
        return "no devices"
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
