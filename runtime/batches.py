"""Batches of the network, filled with the people of several images."""

from collections.abc import Sequence


def batches(counts: Sequence[int], size: int) -> list[list[tuple[int, slice]]]:
    """Distribute people over batches of up to `size`, in order.

    Args:
        counts: number of people per image.
    Returns:
        For each batch the (image number, slice of its people) pairs.
    """
    made: list[list[tuple[int, slice]]] = []
    room = 0
    for number, count in enumerate(counts):
        start = 0
        while start < count:
            if room == 0:
                made.append([])
                room = size
            stop = min(count, start + room)
            made[-1].append((number, slice(start, stop)))
            room -= stop - start
            start = stop
    return made
