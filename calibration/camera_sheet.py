"""The checkerboard to print, as a PDF of exact size: a page of A4, squares in millimetres, a line to check the printer.

PDF, since browsers print an SVG at whatever size fits the paper. What is drawn fits US Letter too.
"""

from __future__ import annotations

from calibration.camera_board import Board, CameraFault

_PAGE_MM = (297.0, 210.0)
_MARGIN_MM = 14.0  # what is outside may be cut off on US Letter, or by the printer
_POINTS_PER_MM = 72.0 / 25.4
_RULER_MM = 100.0


def board_pdf(board: Board) -> bytes:
    """The sheet.

    Raises:
        CameraFault: bad_board: the board does not fit the page.
    """
    squares = board.columns + 1, board.rows + 1
    width_mm, height_mm = (count * board.square_mm for count in squares)
    if width_mm > _PAGE_MM[0] - 2 * _MARGIN_MM or height_mm > _PAGE_MM[1] - 2 * _MARGIN_MM:
        raise CameraFault(
            "bad_board",
            f"{squares[0]} x {squares[1]} squares of {board.square_mm:g} mm do not fit on A4",
            cause=f"{width_mm:g} x {height_mm:g} mm are needed, {_PAGE_MM[0] - 2 * _MARGIN_MM:g} x "
            f"{_PAGE_MM[1] - 2 * _MARGIN_MM:g} mm are there",
            next_step="choose smaller squares or fewer of them",
        )
    left, foot = (_PAGE_MM[0] - width_mm) / 2, (_PAGE_MM[1] - height_mm) / 2 + 2.0
    black = [
        f"{left + column * board.square_mm:.3f} {foot + row * board.square_mm:.3f} {board.square_mm:.3f} "
        f"{board.square_mm:.3f} re"
        for row in range(squares[1])
        for column in range(squares[0])
        if (row + column) % 2 == 0
    ]
    ruler, at = foot - 8.0, left
    words = (
        f"hotlap: {board.columns} x {board.rows} inner corners, {board.square_mm:g} mm squares. Print at 100 %: "
        f"the line must be {_RULER_MM:g} mm long."
    )
    content = "\n".join(
        [
            f"{_POINTS_PER_MM:.6f} 0 0 {_POINTS_PER_MM:.6f} 0 0 cm", "0 g", *black, "f", "0.4 g 0.4 G 0.2 w",
            f"{at:.3f} {ruler:.3f} m {at + _RULER_MM:.3f} {ruler:.3f} l S",
            *(f"{at + x:.3f} {ruler - 1.5:.3f} m {at + x:.3f} {ruler + 1.5:.3f} l S" for x in (0.0, _RULER_MM)),
            f"BT /F 3 Tf {at + _RULER_MM + 4:.3f} {ruler - 1:.3f} Td ({words}) Tj ET",
        ]
    ).encode("ascii")  # fmt: skip
    page = " ".join(f"{side * _POINTS_PER_MM:.3f}" for side in _PAGE_MM)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {page}] /Contents 4 0 R /Resources "
        "<< /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>".encode("ascii"),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    text, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return text + end % (size, table, size, len(text))
