"""Results of a bench: cells, paired statistics, fairness checks; ``render/`` only draws and writes them."""
