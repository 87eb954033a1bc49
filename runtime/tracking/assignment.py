"""The best one-to-one assignment of a similarity matrix: Kuhn-Munkres by shortest augmenting paths.

Exact and not greedy: where people cross, the best single pair may leave the other person with nobody. Forty lines
serve as well as a dependency, since a frame has a few people and a crowd of 200 takes milliseconds.
"""

import numpy as np
from numpy.typing import NDArray


def assign(similarity: NDArray[np.floating], least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the largest total similarity, none of them below `least`.

    Args:
        similarity: (N, M), such as the IoU of tracks and detections.
    """
    admissible = similarity >= least
    rows, columns = np.flatnonzero(admissible.any(1)), np.flatnonzero(admissible.any(0))
    if len(rows) == 0:
        return []
    cost = -np.where(admissible, similarity, 0)[np.ix_(rows, columns)].astype(np.float64)
    flipped = len(rows) > len(columns)
    pairs = enumerate(_columns_of_rows(cost.T if flipped else cost))
    found = [(rows[b], columns[a]) if flipped else (rows[a], columns[b]) for a, b in pairs]
    return sorted((int(row), int(column)) for row, column in found if admissible[row, column])


def _columns_of_rows(cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """The column of each row in the cheapest assignment of all rows; N <= M."""
    count, width = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(width)
    owner = np.full(width, -1)  # the row that a column is given to
    for start in range(count):
        distance, previous = np.full(width, np.inf), np.full(width, -1)
        done = np.zeros(width, bool)
        row, column = start, -1
        while True:  # Dijkstra over the reduced costs, to the nearest free column
            reduced = cost[row] - row_price[row] - column_price
            if column >= 0:
                reduced += distance[column]
            nearer = ~done & (reduced < distance)
            distance[nearer], previous[nearer] = reduced[nearer], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            if owner[column] < 0:
                break
            done[column] = True
            row = owner[column]
        row_price[start] += distance[column]
        row_price[owner[done]] += distance[column] - distance[done]
        column_price[done] -= distance[column] - distance[done]
        while column >= 0:  # hand the columns on along the path
            before = int(previous[column])
            owner[column] = owner[before] if before >= 0 else start
            column = before
    given = np.empty(count, np.intp)
    given[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return given
