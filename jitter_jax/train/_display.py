"""What a run shows on the terminal."""

import sys
from typing import Any


class Display:
    """Lines of text and a progress bar that do not overwrite each other."""

    def __init__(self, *, bar: bool, quiet: bool = False):
        """Shows nothing yet.

        Args:
            bar: Whether there is a bar.
            quiet: Shows nothing at all, as for all processes of a run but one.
        """
        self._wants_bar = bar and not quiet
        self._quiet = quiet
        self._bar: Any = None
        self._shown: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Prints a line."""
        if not self._quiet:
            from tqdm import tqdm

            tqdm.write(text)

    def start(self, number: int, num_steps: int) -> None:
        """Draws the bar; its speed counts from here."""
        if self._wants_bar:
            from tqdm import tqdm

            # A log file that collects the bar's lines gets two a minute.
            interval = 0.2 if sys.stderr.isatty() else 30.0
            self._bar = tqdm(total=num_steps, initial=number, unit="step", mininterval=interval)

    def tick(self, steps: int = 1) -> None:
        """Moves the bar on."""
        if self._bar is not None:
            self._bar.update(steps)

    def show(self, **values: float) -> None:
        """Writes numbers behind the bar, beside those already there."""
        if self._bar is not None:
            self._shown.update({name: f"{value:.3g}" for name, value in values.items()})
            self._bar.set_postfix(self._shown, refresh=False)

    def close(self) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()
