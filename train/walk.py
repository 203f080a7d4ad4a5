"""Walk: the shortest way through a road map, with tolls, by Dijkstra's method.

The open towns are written anew after every step, so they are near. What must be remembered over the whole trace is which
towns are closed, and at the end, town after town back to the start, from where each was reached.
"""

import heapq

from puzzle import Puzzle
from writing import NAMES

TOKENS_PER_TOWN = 88  # measured
MOST = 150


def _roads(rng, n):
    """Towns along a line with roads to near ones: {town: {other: length}}, connected."""
    roads = [dict() for _ in range(n)]

    def build(i, j):
        if i != j and j not in roads[i]:
            roads[i][j] = roads[j][i] = rng.randint(1, 30)

    for j in range(1, n):
        build(rng.randrange(max(0, j - 3), j), j)
    for _ in range(n):
        i = rng.randrange(n)
        build(i, min(n - 1, i + rng.randint(1, 7)))
    return roads


def _trace(rng, names, roads, listed, tolls, start, goal):
    """listed: for each town its neighbours in the order of the prompt."""
    lines, came, closed, open_towns = [], {}, set(), {start: (0, start)}
    while True:
        town = min(open_towns, key=lambda t: open_towns[t][0])  # the first of equals, as the scan finds it
        distance, before = open_towns.pop(town)
        closed.add(town)
        came[town] = before
        line = f"Take {names[town]} at {distance} from {names[before]}."
        if town == goal:
            lines.append(line + " That is the goal.")
            break
        for other in listed[town]:
            length = roads[town][other]
            if other in closed:
                line += f" {names[other]} closed."
                continue
            reach = distance + length
            line += f" {names[other]}: {distance} + {length} = {reach}, "
            if other not in open_towns:
                line += "new."
                open_towns[other] = (reach, town)
            elif reach < open_towns[other][0]:
                line += f"below {open_towns[other][0]}."
                open_towns[other] = (reach, town)
            else:
                line += f"not below {open_towns[other][0]}."
        lines.append(line)
        least, entries = None, []
        for other, (reach, before) in open_towns.items():
            low = least is None or reach < least
            least = reach if low else least
            entries.append(f"{names[other]} {reach} {names[before]}{' low' if low else ''}")
        lines.append("Open: " + ", ".join(entries) + ".")
    total, at, hops = distance, goal, 0
    lines.append(f"Now back. Length {distance}.")
    while True:
        total += tolls[at]
        hops += 1
        line = f"Back {names[at]}: toll {tolls[at]}, {total - tolls[at]} + {tolls[at]} = {total}"
        if at == start:
            lines.append(line + ", the start.")
            break
        lines.append(f"{line}, came from {names[came[at]]}.")
        at = came[at]
    lines.append(f"Done, {total} in all.")
    return "\n".join(lines), total


def _is_fair(roads, tolls, start, goal):
    """Do all shortest ways cost the same tolls? Only then has the puzzle one answer."""
    length, pending = {start: 0}, [(0, start)]
    while pending:
        at, town = heapq.heappop(pending)
        for other, road in roads[town].items():
            if at + road < length.get(other, at + road + 1):
                length[other] = at + road
                heapq.heappush(pending, (at + road, other))
    sums = {start: {tolls[start]}}
    for town in sorted(length, key=length.get)[1:]:
        sums[town] = {s + tolls[town] for other, road in roads[town].items() if length[other] + road == length[town]
                      for s in sums[other]}
    return len(sums[goal]) == 1


def make(rng, size):
    while True:
        n = max(3, min(MOST, round(size / TOKENS_PER_TOWN * rng.uniform(0.85, 1.15) + 2)))
        names = rng.sample(NAMES, n)
        roads = _roads(rng, n)
        tolls = [rng.randint(1, 9) for _ in range(n)]
        listed = [list(near) for near in roads]
        for near in listed:
            rng.shuffle(near)
        start, goal = (0, n - 1) if rng.random() < 0.5 else (n - 1, 0)
        if not _is_fair(roads, tolls, start, goal):
            continue
        trace, answer = _trace(rng, names, roads, listed, tolls, start, goal)
        if answer > 999:
            continue
        order = list(range(n))
        rng.shuffle(order)
        towns = "; ".join(f"{names[t]} toll {tolls[t]}: " + ", ".join(f"{names[o]} {roads[t][o]}" for o in listed[t])
                          for t in order)
        prompt = (f"Walk. {towns}. Go the shortest way from {names[start]} to {names[goal]}. Answer with its length plus the "
                  f"tolls of all its towns in \\boxed{{}}.")
        return Puzzle("walk", "walk", prompt, trace, answer)
