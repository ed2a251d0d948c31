"""Lay out the DAG of the stages as boxes and lines, from the top down."""

from dataclasses import dataclass, field
from itertools import pairwise

from grandalf.graphs import Edge, Graph, Vertex
from grandalf.layouts import SugiyamaLayout
from grandalf.routing import route_with_lines

CHARACTER = 8.5  # the width of a character of a name, in pixels, generously
HEIGHT, GAP = 40.0, 36.0  # of boxes, and between them, in pixels

Point = tuple[float, float]  # from the upper left corner, in pixels


@dataclass
class Box:
    """What grandalf places: a node of the graph. xy is its center."""

    name: str
    xy: Point = (0.0, 0.0)
    w: float = field(init=False)
    h: float = HEIGHT

    def __post_init__(self) -> None:
        self.w = len(self.name) * CHARACTER + 32


@dataclass
class Line:
    """What grandalf routes: an edge of the graph, from the border of one box to that of another."""

    points: list[Point] = field(default_factory=list)

    def setpath(self, points: list[Point]) -> None:
        """Take the points that grandalf found."""
        self.points = points

    @property
    def path(self) -> str:
        """Return a smooth line through the points, as the `d` of an SVG path."""
        (x, y), *_ = self.points
        curves = [f"M{x:.1f} {y:.1f}"]
        for (x1, y1), (x2, y2) in pairwise(self.points):
            middle = (y1 + y2) / 2
            curves.append(f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}")
        return "".join(curves)


@dataclass(frozen=True)
class Drawing:
    """The boxes and lines of a graph, and the size of the whole, in pixels."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[Line]


def lay_out(names: list[str], edges: list[tuple[str, str]]) -> Drawing:
    """Lay out a graph, given its nodes and its edges, each from a node to one that needs it.

    The layout is Sugiyama's: no line crosses a box. Parts that are not connected stand side by side.
    """
    vertices = {name: Vertex(name) for name in names}
    for name, vertex in vertices.items():
        vertex.view = Box(name)
    graph = Graph(list(vertices.values()), [Edge(vertices[start], vertices[end]) for start, end in edges])

    boxes: list[Box] = []
    lines: list[Line] = []
    right = 1.0  # leaves room for the width of the border
    for part in graph.C:
        for edge in part.sE:
            edge.view = Line()
        layout = SugiyamaLayout(part)
        layout.xspace = layout.yspace = GAP
        layout.route_edge = route_with_lines
        layout.init_all(optimize=True)
        layout.draw()
        placed, routed = [vertex.view for vertex in part.sV], [edge.view for edge in part.sE]
        shift = right - min(box.xy[0] - box.w / 2 for box in placed)
        for box in placed:
            box.xy = box.xy[0] + shift, box.xy[1] + 1
        for line in routed:
            line.points = [(x + shift, y + 1) for x, y in line.points]
        bounds = [box.xy[0] + box.w / 2 for box in placed] + [x for line in routed for x, _ in line.points]
        right = max(bounds) + GAP
        boxes += placed
        lines += routed
    return Drawing(right - GAP + 1, max(box.xy[1] for box in boxes) + HEIGHT / 2 + 1, boxes, lines)
