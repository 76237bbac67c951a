"""Cloud TPU VMs: a queued resource, the same command on every worker, again after preemption.

Google Cloud is spoken to through `gcloud` alone. Nothing here imports jax.

| file | holds |
|---|---|
| `validate.py` | Google's rules for what a user may name |
| `tpu_slice.py` | `Slice`: which chips, where and how they are paid for |
| `gcloud.py` | every `gcloud` command that is used, with its page; how they are run |
| `source_archive.py` | the committed code as one file |
| `untrusted.py` | JSON of the bucket, which others may have written |
| `run_record.py` | `Run`: what runs, its limits and its attempts; where each file of it lies |
| `observe.py` | what is seen of an attempt: its resource, its nodes, its workers |
| `restart_policy.py` | what to do next, as a pure function |
| `lease.py` | that one watcher at a time does so |
| `watcher.py` | the loop that looks, decides and acts |
| `worker.py` | what runs on each worker |
"""
