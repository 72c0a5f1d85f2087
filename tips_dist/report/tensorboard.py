"""Start TensorBoard on the trials of a run, in this process."""

from __future__ import annotations

from pathlib import Path


def launch(logdir: Path, host: str = "127.0.0.1", port: int = 6006) -> str:
    """Serve ``logdir`` from a background thread and return the address.

    ``logdir`` may still be empty; new trials appear as they are written.

    Raises:
        OSError: the port is taken or the host cannot be bound.
    """
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(logdir=str(logdir), host=host, port=port or None, reload_interval=10)
    try:
        return str(board.launch())
    except program.TensorBoardServerException as error:
        raise OSError(str(error)) from error
