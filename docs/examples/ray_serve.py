"""`imagen serve` in Ray Serve: replicas of the whole server, each with a cascade of its own.

Run, in this folder: `serve run ray_serve:app`. IMAGEN_CASCADE names the cascade ("shapes").
"""

import os

from ray import serve

REPLICAS = int(os.environ.get("IMAGEN_REPLICAS", "2"))


def build():
    """The application of one replica; called in its process."""
    import imagen_jax
    from imagen_jax.serve.api import make_app
    from imagen_jax.serve.engine import Engine, default_batch_size
    from imagen_jax.serve.metrics import Metrics
    from imagen_jax.serve.settings import Settings

    name = os.environ.get("IMAGEN_CASCADE", "shapes")
    imagen = imagen_jax.load(name)
    side = imagen.stages[-1].stage.size
    engine = Engine(imagen, batch_size=default_batch_size(), max_queue=256, metrics=Metrics())
    engine.warm([(side, side)], lambda what, seconds: print(f"compiled {what}: {seconds:.1f} s"))
    engine.start()
    limits = Settings(
        model=name, sizes=((side, side),), max_pixels=2**24, max_steps=250, timeout=600.0
    )
    return make_app(engine, limits)


@serve.deployment(
    num_replicas=REPLICAS,
    max_ongoing_requests=64,
    ray_actor_options={"num_cpus": 1},  # or {"num_gpus": 1}, or {"resources": {"TPU": 4}}
)
@serve.ingress(build)
class Images:
    """The replica; its application answers."""


app = Images.bind()
