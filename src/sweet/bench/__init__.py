"""The paper's tables as runnable protocols: which cells, on what budget; and running them."""
