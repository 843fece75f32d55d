"""A table as people read it: on a terminal, in Markdown, in a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts under a head; the first column is of names, the others of figures.

    Attributes
    ----------
    head : tuple of str
    rows : tuple of tuple of str
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_text(self) -> str:
        """Return aligned columns, two spaces between them."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        return "\n".join(_aligned(row, widths) for row in (self.head, *self.rows))

    def to_markdown(self) -> str:
        """Return a table in GitHub's Markdown."""
        rule = ("---", *["---:"] * (len(self.head) - 1))
        lines = [[cell.replace("|", r"\|") for cell in row] for row in (self.head, *self.rows)]
        lines.insert(1, list(rule))
        return "\n".join(f"| {' | '.join(row)} |" for row in lines)

    def to_latex(self) -> str:
        r"""Return a ``tabular`` with the rules of the package booktabs."""
        head, *rows = (_latex_row(row) for row in (self.head, *self.rows))
        columns = "l" + "r" * (len(self.head) - 1)
        return "\n".join(
            [
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )


def latex_text(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _latex_row(row: Sequence[str]) -> str:
    # A bracket behind the end of a row would be read as its option.
    cells = (f"{{{cell}}}" if cell.startswith("[") else cell for cell in map(latex_text, row))
    return " & ".join(cells) + r" \\"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures = row
    cells = [name.ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
    return "  ".join(cells).rstrip()
