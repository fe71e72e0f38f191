"""Models shipped inside the package, in plain transformers format. It owns the files' place, and loads nothing."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def bundled_path(name: str) -> Path:
    """Folder of the bundled model `name`, as `from_pretrained` takes it.

    Raises ValueError, naming the models there are, when `name` is none of them.
    """
    names = sorted(config.parent.name for config in _FOLDER.glob("*/config.json"))
    if name not in names:
        raise ValueError(f"no bundled model is called {name!r}; there is: {', '.join(names)}")
    return _FOLDER / name
