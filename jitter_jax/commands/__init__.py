"""What the binaries do, as functions: train, evaluate, attack, compare, reconstruct."""
