"""The command line that the scripts share."""

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ldm.system import cli


def test_a_folder_is_tried_without_disturbing_others_who_try_it(tmp_path: Path) -> None:
    """Runs that begin at once, in one folder that is not there yet, all go on; nothing is left."""
    folders = [tmp_path / "runs" / name for name in "abcdefgh"] * 25
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cli.check_folder, folders))  # raises what one of them raised
    assert not list(tmp_path.iterdir())


def test_nobody_looks_for_garbage_among_imports() -> None:
    """Nor later among what they made; and all is as before when an import fails."""
    before, made = gc.get_freeze_count(), []

    def fail() -> None:
        with cli.no_garbage():
            assert not gc.isenabled()
            made.extend([] for _ in range(1000))
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)
    gc.unfreeze()


def test_leaving_takes_no_search_for_garbage() -> None:
    """Objects are frozen before Python exits, so that it does not search them."""
    program = (
        "import atexit, gc\n"
        "from ldm.system import cli\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
        "cli.run(lambda: 0, 'test')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.split() == [b"True"]
