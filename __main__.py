"""Command-line entry point: `python <this folder> COMMAND`, without an installation."""

import importlib.util
import sys
from pathlib import Path

PACKAGE_FOLDER = Path(__file__).resolve().parent


def load_package():
    """Loads this folder as the package `likeness`, whatever its name."""
    if "likeness" in sys.modules:
        return
    # It contains `nodes/`, also the name of a ComfyUI module: it must not be on the path.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != PACKAGE_FOLDER]
    spec = importlib.util.spec_from_file_location(
        "likeness", PACKAGE_FOLDER / "__init__.py", submodule_search_locations=[str(PACKAGE_FOLDER)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    from likeness.cli import main

    sys.exit(main())
