"""Two results against each other: ratios with their intervals, and what can be said of them."""
