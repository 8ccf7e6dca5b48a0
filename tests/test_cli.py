"""What the scripts share."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ldm import cli


def test_a_folder_is_tried_without_disturbing_others_who_try_it(tmp_path: Path) -> None:
    """Runs that begin at once, in one folder that is not there yet, all go on; nothing is left."""
    folders = [tmp_path / "runs" / name for name in "abcdefgh"] * 25
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cli.check_folder, folders))  # raises what one of them raised
    assert not list(tmp_path.iterdir())
