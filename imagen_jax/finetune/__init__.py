"""Fine-tuning on a few images of one subject (DreamBooth, arXiv:2208.12242).

| file | holds |
|---|---|
| `choices.py` | steps, rate and averaging for so many images |
| `subject.py` | the images, their captions and those of the class, as a dataset |
"""

from imagen_jax.finetune.choices import Choices, adapt, choose
from imagen_jax.finetune.subject import SubjectDataset

__all__ = ["Choices", "SubjectDataset", "adapt", "choose"]
