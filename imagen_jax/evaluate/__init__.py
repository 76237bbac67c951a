"""Evaluation of cascades: of shapes by an oracle, of any by a benchmark's prompts, and by people.

| file | holds |
|---|---|
| `evaluate.py` | `evaluate`: the protocol; what `imagen eval` runs |
| `settings.py` | `EvaluationSettings`: prompts, sweep, seed |
| `eval_set.py` | captions that are in no dataset, and real images of them |
| `alignment.py` | the oracle: `judge` one image against its caption, `score` many |
| `detector.py` | shapes, colours and places in an image, by classical image analysis |
| `frechet.py` | a Fréchet distance on classical descriptors, in place of FID |
| `sharpness.py` | sharpness of edges, for sizes that the oracle reduces |
| `report.py` | `Report`: one page of scores, plots and sample grids |
| `prompt_file.py`, `protocols.py` | prompts of benchmarks, and how they are sampled and scored |
| `sample_folder.py` | images of prompts, sampled part by part |
| `benchmark.py`, `benchmark_page.py` | scores by setting and category; their page |
| `retrieval.py` | is the nearest real image that of the prompt? |
| `layouts.py` | folders of images as other benchmarks' programs read them |
| `preference_page.py`, `preferences.py` | a page to compare images; shares with intervals |
"""
