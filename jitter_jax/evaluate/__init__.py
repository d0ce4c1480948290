"""Tables and figures of what a reconstructor does, clean and under attack."""
