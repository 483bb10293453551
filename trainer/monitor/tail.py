"""Reading a growing text file: only what is new, whole lines only, in pieces of bounded size."""

from __future__ import annotations

from pathlib import Path

_REMEMBERED = 256  # bytes before the place we are at, by which a file that was replaced is told from one that grew
PIECE = 1 << 20


class Tail:
    """One file of lines with a header.

    A file may be replaced, or another of the ``paths`` (the first that exists is read) have the same content: where
    its beginning is that of what was read, reading goes on.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self.restart()

    def restart(self) -> None:
        """From the beginning again."""
        self.header: list[str] = []
        self._offset, self._before = 0, b""

    def more(self) -> bytes | None:
        """The next whole lines, at most `PIECE` bytes, b"" where there is nothing new.

        None where what was read before is not in the file any more: the caller forgets it, and reading starts again.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset - len(self._before))
                if file.read(len(self._before)) != self._before:
                    self.restart()
                    return None
                data = file.read(PIECE)
        except FileNotFoundError:
            if self._offset:
                self.restart()
                return None
            return b""
        lines = data[: data.rfind(b"\n") + 1]
        if not lines:
            return b""
        self._offset += len(lines)
        self._before = (self._before + lines)[-_REMEMBERED:]
        if not self.header:
            first, _, lines = lines.partition(b"\n")
            self.header = first.decode("utf-8", "replace").strip().split(",")
        return lines

    @property
    def path(self) -> Path:
        """The file that is read now."""
        return next((path for path in self._paths if path.exists()), self._paths[-1])

    def skip_to_end(self) -> None:
        """Leave out what is there now."""
        while self.more():
            pass
