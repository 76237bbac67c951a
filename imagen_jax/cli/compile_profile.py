"""Time of a command: its parts by the clock, and the share of each that was compiling."""

import time
from collections import defaultdict

# Events of jax, which may lie within one another, and the columns that they belong to.
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "tracing",
    "/jax/core/compile/backend_compile_duration": "compiling, or reading what was",
}
COLUMNS = tuple(dict.fromkeys(EVENTS.values()))


class CompileProfile:
    """Seconds of parts that follow one another; the first began at `started`, of `perf_counter`."""

    def __init__(self, started: float) -> None:
        self._last = started
        self._parts: dict[str, dict[str, float]] = {}
        self._heard: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def listen(self) -> None:
        """Hear from jax what it compiles, until the process ends."""
        from jax import monitoring

        def hear(event: str, duration_secs: float, **_: str | int) -> None:
            if event in EVENTS:
                now = time.perf_counter()
                self._heard[EVENTS[event]].append((now - duration_secs, now))

        monitoring.register_event_duration_secs_listener(hear)

    def end_part(self, part: str) -> None:
        """All since the part before belongs to this one; parts of one name add up."""
        now = time.perf_counter()
        row = self._parts.setdefault(part, dict.fromkeys(("all", *COLUMNS), 0.0))
        row["all"] += now - self._last
        for column, spans in self._heard.items():
            row[column] += covered_seconds(spans)
        self._heard.clear()
        self._last = now

    def table(self) -> str:
        """A line for each part, in Markdown, and their sum."""
        total = {name: sum(row[name] for row in self._parts.values()) for name in ("all", *COLUMNS)}
        lines = [f"| seconds | all | {' | '.join(COLUMNS)} |", "|---|---|" + "---|" * len(COLUMNS)]
        lines += [
            f"| {part} | {' | '.join(f'{seconds:.2f}' for seconds in row.values())} |"
            for part, row in {**self._parts, "together": total}.items()
        ]
        return "\n".join(lines)


def covered_seconds(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in any of the spans."""
    found, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        found += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return found
