"""What processes import, and from where."""

import subprocess
import sys
from pathlib import Path

from likeness.trainers import job

ROOT = Path(__file__).resolve().parents[2]


def test_importing_the_pack_brings_no_training_stack():
    code = (
        "import runpy, sys\n"
        f"runpy.run_path({str(ROOT / '__main__.py')!r}, run_name='x')['load_package']()\n"
        f"runpy.run_path({str(ROOT / 'tests' / 'comfy' / 'stub.py')!r})['install']()\n"
        "heavy = {'diffusers', 'transformers', 'peft', 'accelerate', 'bitsandbytes'}\n"
        "print(*heavy & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_several_processes_import_nothing_from_the_folder_they_work_in(tmp_path):
    """A run's folder may have come from somebody else."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("print('imported from the run')")
    told = subprocess.run(
        [*job._command(2)[:-3], "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0 and "--nproc" in told.stdout, told.stderr
    assert "imported" not in told.stdout
