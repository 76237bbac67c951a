"""The help of a config's fields: each has its own words."""

import re
from collections import defaultdict

import pytest

from imagen_jax.cli import train


@pytest.mark.parametrize("name", ["configs/tiny/base8.py", "configs/tiny/sr16.py"])
def test_no_two_fields_have_the_same_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A comment above a field is shown for those below it, too, which have none of their own."""
    with pytest.raises(SystemExit):
        train.run([name, "--help"])
    fields: dict[str, list[str]] = defaultdict(list)
    option = ""
    for line in capsys.readouterr().out.splitlines():
        text = line.strip("│ ").strip()
        if text.startswith("--"):
            option = text.split()[0].rstrip(",")
        elif option and not text.startswith(("╭", "╰", "─")):
            fields[option].append(text)
    words = {name: re.sub(r"\(default: .*", "", " ".join(found)) for name, found in fields.items()}
    named = {name: said.strip() for name, said in words.items() if len(said.strip()) > 25}
    assert len(named) > 60
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for field, said in named.items():
        owners[field.rpartition(".")[0], said].append(field)
    assert [fields for fields in owners.values() if len(fields) > 1] == []
