"""Walk: cheapest and shortest ways through a road map, by Dijkstra's method.

When a town is taken its roads are said first, as the prompt has them, and then worked through; the open towns are written
anew after every step. Two kinds. With *ends*, several towns end the way for a fee: the cheapest end so far is compared with
every new way but written only when it changes. With the way *back*, what must be remembered over the whole trace is from
where each town was reached, for the tolls on the way.
"""

import heapq
import math

from puzzle import Puzzle
from writing import NAMES, effort

TOKENS_PER_TOWN = {"ends": 74, "back": 84}  # measured
MOST = 150
BACK = 0.35  # of the puzzles
EARLY = 0.65  # of those with ends have the cheapest among the first that are reached


def _roads(rng, n):
    """Towns on a plane with roads between near ones: {town: {other: length}} for each, connected."""
    wide = rng.uniform(1, 8)
    places = [(rng.random() * wide, rng.random()) for _ in range(n)]
    places.sort(key=lambda p: p[0] + rng.uniform(-0.2, 0.2))
    roads, unit = [dict() for _ in range(n)], 14 * (n / wide) ** 0.5

    def gap(i, j):
        return math.dist(places[i], places[j])

    def build(i, j):
        if j not in roads[i] and len(roads[i]) < 5 and len(roads[j]) < 5:
            roads[i][j] = roads[j][i] = max(1, round(unit * gap(i, j) * rng.uniform(0.8, 1.4)))

    for j in range(1, n):
        near = min((i for i in range(j) if len(roads[i]) < 5), key=lambda i: gap(i, j))
        build(near, j)
    for _ in range(round(0.55 * n)):
        i = rng.randrange(n)
        others = [j for j in range(n) if j != i and j not in roads[i]]
        if others:
            build(i, min(others, key=lambda j: gap(i, j)))
    return roads


def _distances(roads, start):
    length, pending = {start: 0}, [(0, start)]
    while pending:
        at, town = heapq.heappop(pending)
        if at > length[town]:
            continue
        for other, road in roads[town].items():
            if at + road < length.get(other, at + road + 1):
                length[other] = at + road
                heapq.heappush(pending, (at + road, other))
    return length


class Frontier:
    """The open towns, and the lines that say how they come and go."""

    def __init__(self, rng, names, roads, listed, start, scale):
        self.rng, self.names, self.roads, self.listed, self.scale = rng, names, roads, listed, scale
        self.open, self.came = {start: (0, start)}, {}

    def nearest(self):
        return min(self.open, key=lambda t: self.open[t][0])  # the first of equals, as the scan finds it

    def take(self):
        """(town, distance, from where): closed from now on."""
        town = self.nearest()
        distance, self.came[town] = self.open.pop(town)
        return town, distance, self.came[town]

    def reach(self, town, distance, best=None):
        """Works through the roads of a town. best: no way so long is of use."""
        names, roads = self.names, self.roads[town]
        line = "Roads " + ", ".join(f"{names[o]} {roads[o]}" for o in self.listed[town]) + "."
        for other in self.listed[town]:
            if other in self.came:
                line += f" {names[other]} closed."
                continue
            reach = distance + roads[other]
            line += f" {names[other]}: {distance} + {roads[other]} = {reach}, "
            if self.rng.random() < 0.04 * self.scale:
                line += f"check {distance} + {roads[other]} = {reach}, yes, "
            if best is not None:
                line += "over best, " if reach >= best else "under best, "
            if best is not None and reach >= best:
                line += "drop."
            elif other not in self.open:
                line += "new."
                self.open[other] = (reach, town)
            elif reach < self.open[other][0]:
                line += f"below {self.open[other][0]}."
                self.open[other] = (reach, town)
            else:
                line += f"not below {self.open[other][0]}."
        return line

    def say(self, with_from, best=None):
        """The open towns; each that is the least so far is marked, and one that has become too far is said a last time."""
        least, entries = None, []
        for other, (reach, before) in list(self.open.items()):
            entry = f"{self.names[other]} {reach}" + (f" {self.names[before]}" if with_from else "")
            if best is not None and reach >= best:
                entry += " over"
                del self.open[other]
            elif least is None or reach < least:
                least = reach
                entry += " low"
            entries.append(entry)
        return "Open: " + ", ".join(entries) + "." if entries else "None open."


def _trace_ends(frontier, fees):
    """fees: {town: fee}; (trace, the least cost)."""
    names, lines, best, end = frontier.names, [], None, None
    while frontier.open:
        town, distance, _ = frontier.take()
        line = f"Take {names[town]} at {distance}."
        if town in fees:
            cost = distance + fees[town]
            line += f" End: {distance} + {fees[town]} = {cost}, "
            if best is None or cost < best:
                line += f"{'first' if best is None else 'under best'}, best now {cost} at {names[town]}."
                best, end = cost, town
            else:
                line += "not under best."
        lines.append(f"{line} {frontier.reach(town, distance, best)}")
        lines.append(frontier.say(False, best))
    lines.append(f"Done, best {best} at {names[end]}.")
    return "\n".join(lines), best


def _trace_back(frontier, tolls, start, goal):
    """(trace, length and tolls of the shortest way)."""
    names, lines, at_distance = frontier.names, [], {}
    while True:
        town, distance, before = frontier.take()
        at_distance[town] = distance
        line = f"Take {names[town]} at {distance} from {names[before]}."
        if town == goal:
            lines.append(line + " That is the goal.")
            break
        lines.append(f"{line} {frontier.reach(town, distance)}")
        lines.append(frontier.say(True))
    total, at = distance, goal
    lines.append(f"Now back. Length {distance}.")
    while True:
        total += tolls[at]
        line = f"Back {names[at]} at {at_distance[at]} from {names[frontier.came[at]]}: toll {tolls[at]}, "
        line += f"{total - tolls[at]} + {tolls[at]} = {total}"
        if at == start:
            lines.append(line + ", the start.")
            break
        lines.append(line + ".")
        at = frontier.came[at]
    lines.append(f"Done, {total} in all.")
    return "\n".join(lines), total


def _is_fair(roads, tolls, start, goal):
    """Do all shortest ways cost the same tolls? Only then has the puzzle one answer."""
    length = _distances(roads, start)
    sums = {start: {tolls[start]}}
    for town in sorted(length, key=length.get)[1:]:
        sums[town] = {s + tolls[town] for other, road in roads[town].items() if length[other] + road == length[town]
                      for s in sums[other]}
    return len(sums[goal]) == 1


def _fees(rng, by_distance, length):
    """Towns that end the way, with fees so that one of them is the cheapest and the farthest towns need not be taken."""
    n = len(by_distance)
    stop = length[by_distance[max(1, round(0.93 * n) - 1)]] + rng.randint(0, 3)
    early = rng.random() < EARLY
    cheapest = by_distance[max(1, round(n * (rng.uniform(0.03, 0.25) if early else rng.uniform(0.25, 0.85))))]
    fees = {cheapest: max(0, stop - length[cheapest])}
    for town in rng.sample(by_distance[1:], min(n - 1, rng.randint(2, 2 + n // 12))):
        if town not in fees and length[town] <= stop:
            fees[town] = stop - length[town] + rng.randint(1, 60)
    return fees


def _ends(rng, n, names, roads, listed, asked, scale, listing):
    start = 0 if rng.random() < 0.7 else rng.randrange(n)
    length = _distances(roads, start)
    fees = _fees(rng, sorted(length, key=length.get), length)
    trace, answer = _trace_ends(Frontier(rng, names, roads, listed, start, scale), fees)
    ends = ", ".join(f"{names[town]} {fee}" for town, fee in fees.items())
    prompt = (f"Walk. {listing}. Start at {names[start]}. Ends and their fees: {ends}. Find the least length plus fee of a way "
              f"from the start to an end. {asked}Answer in \\boxed{{}}.")
    return Puzzle("walk", "ends", prompt, trace, answer)


def make(rng, size, back=None):
    """back: the kind, True or False; None: as the shares have it."""
    wanted = back
    while True:
        usual = rng.random() < BACK
        back = usual if wanted is None else wanted
        asked, scale = effort(rng)
        per_town = TOKENS_PER_TOWN["back" if back else "ends"] * (1 + 0.01 * scale)
        n = max(4, min(MOST, round(size / per_town * rng.uniform(0.85, 1.15) + 2)))
        names = rng.sample(NAMES, n)
        roads = _roads(rng, n)
        tolls = [rng.randint(1, 9) for _ in range(n)]
        listed = [list(near) for near in roads]
        for near in listed:
            rng.shuffle(near)
        order = list(range(n))
        rng.shuffle(order)
        listing = "; ".join(names[t] + (f" toll {tolls[t]}: " if back else ": ")
                            + ", ".join(f"{names[o]} {roads[t][o]}" for o in listed[t]) for t in order)
        if not back:
            puzzle = _ends(rng, n, names, roads, listed, asked, scale, listing)
            if puzzle.answer <= 999:
                return puzzle
            continue
        start, goal = (0, n - 1) if rng.random() < 0.5 else (n - 1, 0)
        if not _is_fair(roads, tolls, start, goal):
            continue
        trace, answer = _trace_back(Frontier(rng, names, roads, listed, start, scale), tolls, start, goal)
        if answer > 999:
            continue
        prompt = (f"Walk. {listing}. Go the shortest way from {names[start]} to {names[goal]}. {asked}Answer with its length "
                  f"plus the tolls of all its towns in \\boxed{{}}.")
        return Puzzle("walk", "back", prompt, trace, answer)
