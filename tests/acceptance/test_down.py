"""`down` leaves no process behind, and keeps the data."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import MODEL, Shell, processes


def test_down_leaves_no_process_and_keeps_the_data(tmp_path: Path, mixed: Path) -> None:
    # Given a stack with a job,
    shell = Shell(tmp_path / "data", tmp_path)
    (up,) = shell.json("up", "--detach")
    assert up["pid"] in processes(shell.data)
    labelled = shell.json("classify", mixed, "--model", MODEL, "--job", "kept", "--max-errors", "2")

    # if I stop it, I expect every process to be gone, and a second `down` to have nothing to do;
    assert shell.json("down") == [{"stopped": True, "data": str(shell.data)}]
    assert processes(shell.data) == {}
    assert shell.json("down")[0]["stopped"] is False

    # and the job to be there when it is up again.
    try:
        shell("up", "--detach", "--workers", 0)
        assert shell.json("show", "kept") == labelled
        assert len(shell.json("results", "kept")) == 5
    finally:
        shell("down")
    assert processes(shell.data) == {}
