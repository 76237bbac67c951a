"""The suite's strictness: no silent promotion, no warnings, eight simulated devices."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile much and compute little: most optimisations cost more than they save here.
jax.config.update("jax_disable_most_optimizations", True)
